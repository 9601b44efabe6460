"""Every name has its words."""

import re
from pathlib import Path

import pytest

import lastchunk.settlement.estimate as estimate
from lastchunk.meter.ending import Ending
from lastchunk.reports.words import (
    _REASONS,
    BASES,
    BASES_IN_SHORT,
    ENDINGS,
    PARTS,
    reason_in_words,
)
from lastchunk.usage import USAGE_PARTS, Basis


def test_every_ending_basis_and_part_has_words() -> None:
    assert set(ENDINGS) == set(Ending)
    assert set(BASES) == set(BASES_IN_SHORT) == set(Basis)
    assert set(PARTS) == {*USAGE_PARTS, "request"}


def test_every_reason_of_an_estimate_has_words() -> None:
    source = Path(estimate.__file__).read_text("utf-8")
    named = set(re.findall(r'reasons\.append\("(\w+)"\)', source))
    named |= set(re.findall(r'\*reasons, "(\w+)"', source))
    assert len(named) >= 5
    assert named <= set(_REASONS)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tier_unpriced:flex", "the standard price was taken (flex)"),
        ("from_a_later_version", "from a later version"),
        ("part:video", "the prompt has a part that cannot be counted (video)"),
    ],
)
def test_a_reason_reads_as_words(name: str, words: str) -> None:
    assert reason_in_words(name).endswith(words)
