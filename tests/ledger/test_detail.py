"""Content survives versions: fields that come later are no trouble to those that came before."""

import msgspec
import pytest
from ledger_facts import COUNTED, NOON, make_call, make_correction, make_settlement

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger.detail import decode, encode
from lastchunk.ledger.entries import Correction, content_hash, reserved_entry, settled_entry
from lastchunk.meter.observation import Observation
from lastchunk.meter.phases import Phase
from lastchunk.pricing.cost import Cost
from lastchunk.settlement.facts import Charge, OpenCall, Settlement
from lastchunk.usage import OutputCounts, TokenCounts

CALL = make_call(attempt_of="call_0", tags=(("a", "b"), ("c", "d")))
SEEN = Observation(
    phase=Phase.STREAMING,
    output=OutputCounts(text_tokens=3),
    reported=TokenCounts(input_tokens=0),
    prompt_reasons=("tools",),
    faults=("x",),
)
FACTS = [
    CALL,
    SEEN,
    make_settlement(CALL, Cost(1, 2, 3), usage=COUNTED, observation=SEEN, reasons=("cut",)),
    make_settlement(CALL, None, nothing_used=True),
    make_correction(CALL, usage=COUNTED, cost=Cost(1, 1, 1), charge=Charge(None, "?")),
]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_what_is_written_is_read_again(fact: object) -> None:
    assert decode(encode(fact), type(fact), "call_1") == fact


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_fields_that_a_later_version_adds_are_left_out(fact: object) -> None:
    def add(value: object) -> object:
        if isinstance(value, dict):
            return {"zz_new": {"a": 1}, **{key: add(item) for key, item in value.items()}}
        return value

    later = msgspec.json.encode(add(msgspec.to_builtins(fact))).decode()
    assert "zz_new" in later
    assert decode(later, type(fact), "call_1") == fact


def test_fields_that_an_earlier_version_did_not_know_have_their_default() -> None:
    assert decode('{"phase":2,"frames":7}', Observation, "call_1") == Observation(
        phase=Phase.STREAMING, frames=7
    )


@pytest.mark.parametrize("fact_type", [OpenCall, Settlement, Correction, Observation])
@pytest.mark.parametrize("text", ["", "{", "[]", '{"phase":99,"call_id":1}', "null"])
def test_what_cannot_be_understood_names_the_call(text: str, fact_type: type[object]) -> None:
    with pytest.raises(LedgerUnavailable, match="call_1"):
        decode(text, fact_type, "call_1")


def test_the_hash_differs_when_anything_that_was_said_differs() -> None:
    entry = reserved_entry(CALL, "proc_1")
    assert entry.content_hash == reserved_entry(CALL, "proc_2").content_hash
    settlement = make_settlement(CALL)
    hashes = {
        entry.content_hash,
        reserved_entry(make_call(CALL.call_id), "proc_1").content_hash,
        settled_entry(CALL, settlement, NOON).content_hash,
        settled_entry(CALL, settlement, NOON + 1).content_hash,
        settled_entry(CALL, make_settlement(CALL, nothing_used=True), NOON).content_hash,
        content_hash(entry.kind, "call_2", NOON, entry.detail),
    }
    assert len(hashes) == 6


def test_no_entry_has_a_place_for_content() -> None:
    """A sentinel put wherever a caller's text could come in shows up nowhere it should not."""
    entry = reserved_entry(CALL, "proc_1")
    names = {name for name in type(entry).__slots__ if isinstance(getattr(entry, name), str)}
    assert names == {
        "call_id", "attempt_of", "kind", "account", "way", "dialect", "model", "upstream",
        "process_id", "detail", "content_hash",
    }  # fmt: skip
    assert set(msgspec.json.decode(entry.detail)) == {
        "call_id", "attempt_of", "account", "tags", "request", "forecast", "way", "opened_ms",
        "after_cancel",
    }  # fmt: skip
