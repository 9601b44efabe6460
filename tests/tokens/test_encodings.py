"""Vocabularies by model name, and counting that never fails and never stalls."""

import time

import pytest
import splintr
from hypothesis import given, settings
from hypothesis import strategies as st

from lastchunk.tokens import encodings
from lastchunk.tokens.encodings import (
    CAP_CHARACTERS,
    SLICE_CHARACTERS,
    Encoding,
    count,
    encoding_of,
    last_safe_split,
)

O200K = Encoding("o200k_base")
CL100K = Encoding("cl100k_base")
TOKENIZER = splintr.Tokenizer.from_pretrained("o200k_base")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "o200k_base"),
        ("gpt-4o-mini-2024-07-18", "o200k_base"),
        ("openai/gpt-4o", "o200k_base"),
        ("ft:gpt-4o-mini:acme::abc", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("o4-mini", "o200k_base"),
        ("gpt-5.4", "o200k_base"),
        ("gpt-oss:20b", "o200k_base"),
        ("gpt-4", "cl100k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("ft:gpt-3.5-turbo-0125:acme", "cl100k_base"),
        ("davinci-002", "cl100k_base"),
        ("meta-llama/Llama-3.3-70B", "llama3"),
        ("deepseek-chat", "deepseek_v3"),
    ],
)
def test_a_model_is_counted_in_its_own_vocabulary(model: str, name: str) -> None:
    assert encoding_of(model) == Encoding(name, known=True, exact=True)


def test_a_family_without_its_own_vocabulary_takes_the_nearest_and_says_so() -> None:
    assert encoding_of("qwen/qwen3-32b") == Encoding("cl100k_base", known=True, exact=False)


@pytest.mark.parametrize("model", ["", "my-deployment", "/", "ft:", "日本", "\ud800"])
def test_an_unknown_name_is_counted_all_the_same_and_marked_unknown(model: str) -> None:
    assert encoding_of(model) == Encoding("o200k_base", known=False, exact=False)


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert count("<|endoftext|>", O200K).tokens > 1


TEXTS = st.text(alphabet=st.sampled_from(list("aB9 \n\t.,'\"{}中é_-")), max_size=400)


@pytest.mark.parametrize("encoding", [O200K, CL100K])
@given(text=TEXTS, at=st.integers(0, 400))
def test_a_safe_split_changes_no_count(encoding: Encoding, text: str, at: int) -> None:
    split = last_safe_split(text, 0, min(at, len(text)))
    if split is None:
        return
    parts = count(text[:split], encoding) + count(text[split:], encoding)
    assert parts == count(text, encoding)


@given(st.text(max_size=300))
@settings(max_examples=300)
def test_any_text_is_counted_as_the_tokenizer_counts_it(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    expected = len(TOKENIZER.encode_ordinary(clean))
    assert count(clean, O200K).tokens == expected


def test_a_lone_surrogate_is_counted_and_does_not_raise() -> None:
    assert count("a\ud800b", O200K).tokens >= 2


def test_a_long_text_counted_in_slices_equals_the_whole() -> None:
    text = "The quick brown fox, 42 times; jumped over it.\n" * 3000
    assert len(text) > 4 * SLICE_CHARACTERS
    whole = len(TOKENIZER.encode_ordinary(text))
    assert count(text, O200K) == encodings.Counted(whole, 0)


def test_forced_splits_widen_the_spread() -> None:
    text = "é中" * SLICE_CHARACTERS
    counted = count(text, O200K)
    whole = len(TOKENIZER.encode_ordinary(text))
    assert counted.spread >= 1
    assert abs(counted.tokens - whole) <= counted.spread


@pytest.mark.parametrize("unit", ["a", "😀", " ", "<|endoftext|>", "\ud800", "\u0301", "\x00"])
def test_megabytes_made_to_hurt_are_counted_in_time(unit: str) -> None:
    text = unit * (3 * 1024 * 1024 // len(unit))
    started = time.perf_counter()
    assert count(text, O200K).tokens > 0
    assert time.perf_counter() - started < 5


def test_beyond_the_cap_the_rest_is_extrapolated_with_a_spread() -> None:
    text = "ten words of plain text that repeat again and again. " * (CAP_CHARACTERS // 40)
    counted = count(text, O200K)
    share = len(text) / CAP_CHARACTERS
    assert counted.tokens == pytest.approx(count(text[:CAP_CHARACTERS], O200K).tokens * share, 0.01)
    assert counted.spread > 0


def test_a_tokenizer_that_fails_leaves_an_estimate_and_a_spread() -> None:
    counted = count("eight by", Encoding("no such vocabulary"))
    assert counted == encodings.Counted(2, 2)
