"""Watching the processes of other hosts: by their silence, look after look, and by no clock."""

from ledger_facts import (
    COUNTED,
    DAY,
    NOON,
    REPORTED,
    Stopwatch,
    ask,
    execute,
    make_call,
    make_settlement,
)

from lastchunk.ledger import Correction, Ledger, Reader, verify
from lastchunk.ledger.vigil import SILENT_LOOKS
from lastchunk.meter.ending import Ending
from lastchunk.pricing.cost import Cost
from lastchunk.usage import Basis, Quantity, Usage


def far_away(url: str, ledger: Ledger) -> None:
    execute(url, f"UPDATE processes SET host = 'far' WHERE process_id = '{ledger.process_id}'")


def look(ledger: Ledger) -> list[str]:
    return [orphan.call.call_id for orphan in ledger.watch().result(30)]


def test_a_process_on_another_host_is_dead_when_its_beat_stands_still(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as far:
        call = make_call()
        far.reserve(call).result()
        far_away(url, far)
        assert [look(ledger) for _ in range(SILENT_LOOKS)] == [[]] * SILENT_LOOKS
        clock.now += 1
        far.beat().result()
        assert [look(ledger) for _ in range(SILENT_LOOKS)] == [[]] * SILENT_LOOKS
        assert look(ledger) == [call.call_id]


def test_a_clock_that_jumps_or_is_off_makes_nobody_dead(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as far:
        far.reserve(make_call()).result()
        far_away(url, far)
        for leap in (10**9, -(10**9), -(10**10)):
            look(ledger)
            clock.now += leap
            far.beat().result()
            assert look(ledger) == []


def test_looks_that_could_not_be_made_do_not_count(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as far:
        far.reserve(make_call()).result()
        far_away(url, far)
        look(ledger)
        execute(url, "ALTER TABLE processes RENAME TO hidden")
        failed = [ledger.watch().exception(30) for _ in range(3)]
        execute(url, "ALTER TABLE hidden RENAME TO processes")
        assert all(failed)
        assert [look(ledger) for _ in range(SILENT_LOOKS - 1)] == [[]] * (SILENT_LOOKS - 1)
        assert look(ledger) != []


def test_ones_own_calls_and_those_of_the_living_are_no_orphans(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    ledger.reserve(make_call()).result()
    with Ledger.open(url, clock=clock) as near:
        call = make_call()
        near.reserve(call).result()
        assert [look(ledger) for _ in range(SILENT_LOOKS + 2)] == [[]] * (SILENT_LOOKS + 2)
    assert look(ledger) == [call.call_id]  # it has signed out


def test_processes_that_ended_long_ago_are_forgotten_unless_a_call_is_open(
    url: str, ledger: Ledger, reader: Reader, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as idle, Ledger.open(url, clock=clock) as busy:
        busy.reserve(make_call()).result()
    clock.now += DAY + 1
    ledger.beat().result()
    with Ledger.open(url, clock=clock):
        pass
    with Ledger.open(url, clock=clock) as last:
        known = {row[0] for row in ask(url, "SELECT process_id FROM processes")}
        assert known >= {ledger.process_id, busy.process_id, last.process_id}
        assert idle.process_id not in known


def test_a_forgotten_process_signs_in_again_with_its_beat(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    """Its machine slept over the weekend, and others tidied up."""
    with Ledger.open(url, clock=clock) as slept:
        execute(url, f"DELETE FROM processes WHERE process_id = '{slept.process_id}'")
        slept.reserve(make_call()).result()
        assert [look(ledger) for _ in range(SILENT_LOOKS)] == [[]] * SILENT_LOOKS
        slept.beat().result()
        assert look(ledger) == []
        assert verify(url).discrepancies == ()


def test_a_forgotten_process_that_never_beats_again_is_dead(
    url: str, ledger: Ledger, clock: Stopwatch
) -> None:
    with Ledger.open(url, clock=clock) as gone:
        call = make_call()
        gone.reserve(call).result()
    execute(url, f"DELETE FROM processes WHERE process_id = '{gone.process_id}'")
    assert [look(ledger) for _ in range(SILENT_LOOKS)] == [[]] * SILENT_LOOKS
    assert look(ledger) == [call.call_id]
    ledger.settle(call, make_settlement(call, ending=Ending.LOST), NOON).result()


def corrected(ledger: Ledger, usage: Usage, settled: Usage) -> bool:
    call = make_call()
    ledger.reserve(call).result()
    ledger.settle(call, make_settlement(call, usage=settled, ending=Ending.LOST), NOON).result()
    correction = Correction(
        call.call_id, "process:p", "its process came back", usage, Cost(1, 1, 1), None, None, NOON
    )
    written = ledger.correct(correction, if_better=True).result()
    assert ledger.correct(correction, if_better=True).result() is False
    return written


def test_only_what_is_known_better_corrects(ledger: Ledger) -> None:
    wide = Quantity(0, 30, 90, Basis.COUNTED)
    assert COUNTED.input_tokens is not None
    guessed = Usage(input_tokens=COUNTED.input_tokens, output_tokens=wide)
    assert corrected(ledger, REPORTED, settled=COUNTED)
    assert corrected(ledger, COUNTED, settled=guessed), "the same basis, more closely"
    assert not corrected(ledger, guessed, settled=COUNTED)
    assert not corrected(ledger, COUNTED, settled=COUNTED)
    assert not corrected(ledger, COUNTED, settled=REPORTED)
