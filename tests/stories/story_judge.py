"""The judge: rows of the ledger against the true bill, and the caller's view against the wire."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from story import ASKING_REFUSED, SECRET, Json, Row, Story

from lastchunk.ledger.entries import Entry, EntryKind
from lastchunk.settlement.facts import Settlement
from lastchunk.simulator import BilledCall, Rendered, render
from lastchunk.usage import Basis, Quantity
from lastchunk.wire.counts import read_counts


@dataclass
class Account:
    """One attempt as it was accounted for; `entries` is empty on the pure stage."""

    settlement: Settlement
    attempt_of: str | None = None
    entries: tuple[Entry, ...] = ()


@dataclass
class Play:
    """What came of one story on one stage. `got` is what the caller was given, as JSON objects."""

    accounts: list[Account]
    bills: list[BilledCall]
    got: list[Json]
    error: str | None = None


def told_by(story: Story, *, number: int = 1, created: int | None = None) -> Rendered:
    """The very body that the provider sent for this story."""
    when = {} if created is None else {"created": created}
    body = story.sent_request
    return render(story.script, body, endpoint=story.endpoint, number=number, **when)


def body_of(story: Story, **when: int) -> bytes:
    """What the provider sent: the rendered body, or the tape's."""
    rendered = told_by(story, **when)
    return rendered.body if story.retold is None else story.retold(rendered).body


def objects_for_caller(story: Story, body: bytes) -> list[Json]:
    """What a client of the bare provider is given of this body, if only its wish is heard."""
    if not story.streamed:
        return [json.loads(body)]
    blocks = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    blocks.pop()  # unfinished, or nothing
    found = []
    for block in blocks:
        lines = [line[5:] for line in block.split(b"\n") if line.startswith(b"data:")]
        if not lines or lines[0].strip() == b"[DONE]":
            continue
        chunk = json.loads(lines[0])
        if story.asked_for_usage or chunk.get("choices") != [] or not chunk.get("usage"):
            found.append(chunk)
    return found


def judge(story: Story, stage: str, play: Play) -> None:
    """All that must hold of any story on any stage."""
    expected = story.expected(stage)
    got = [Row(a.settlement.ending, _basis(a)) for a in play.accounts]
    assert got == list(expected)
    assert len(play.bills) == len(expected), "the provider saw another number of attempts"
    for account, bill in zip(play.accounts, play.bills, strict=True):
        _judge_entries(account)
        _judge_numbers(story, account, bill)
    first = play.accounts[0].settlement.call_id
    assert [a.attempt_of for a in play.accounts] == [None, *[first] * (len(expected) - 1)]
    assert play.error == story.error
    if story.error is None or not _is_refused(play.bills[-1]):
        _judge_view(story, play)


def _basis(account: Account) -> Basis | None:
    output = account.settlement.usage.output_tokens
    return None if output is None else output.basis


def _is_refused(bill: BilledCall) -> bool:
    return not bill.billed or bill.ended.endswith("before_headers")


def _judge_entries(account: Account) -> None:
    """One reservation, one resolution, the same numbers in both places, and no content."""
    if not account.entries:
        return
    released = account.settlement.nothing_used
    last = EntryKind.RELEASED if released else EntryKind.SETTLED
    assert [entry.kind for entry in account.entries] == [EntryKind.RESERVED, last]
    for entry in account.entries:
        assert SECRET not in entry.detail
    settled, usage = account.entries[-1], account.settlement.usage
    assert settled.ending == account.settlement.ending.value
    _assert_same(settled.tokens.input, usage.input_tokens)
    _assert_same(settled.tokens.output, usage.output_tokens)
    assert settled.cost == account.settlement.cost


def _assert_same(column: object, quantity: Quantity | None) -> None:
    if quantity is None:
        assert column is None
        return
    told = tuple(getattr(column, name) for name in ("low", "best", "high", "basis"))
    assert told == (quantity.low, quantity.best, quantity.high, quantity.basis)


def _judge_numbers(story: Story, account: Account, bill: BilledCall) -> None:
    settlement = account.settlement
    usage, cost = settlement.usage, settlement.cost
    if settlement.nothing_used:
        assert not bill.billed
        assert cost is not None
        assert cost.high == 0
        return
    assert usage.input_tokens is not None
    assert usage.output_tokens is not None
    if cost is not None:
        assert cost.low <= cost.best <= cost.high
    if not story.truth_known:
        return
    _assert_within("input", usage.input_tokens, bill.prompt_tokens)
    _assert_within("output", usage.output_tokens, bill.output_tokens)
    if usage.output_tokens.basis is Basis.REPORTED:
        reported = read_counts(bill.usage)
        assert settlement.observation.reported == reported


def _assert_within(what: str, known: Quantity, truth: int) -> None:
    assert known.low <= truth <= known.high, f"{what}: {truth} is not within {known}"


def _judge_view(story: Story, play: Play) -> None:
    """The caller's objects are those of the wire, less the usage chunk that it did not ask for."""
    bill = play.bills[-1]
    if not story.streamed and story.error is not None:
        assert play.got == []
        return
    wanted = objects_for_caller(story, body_of(story, number=bill.call, created=int(bill.at)))
    if story.error is not None:  # the chunk that holds an error is raised, not given
        wanted = [chunk for chunk in wanted if not chunk.get("error")]
    assert len(play.got) <= len(wanted), "the caller was given more than it would have been"
    _assert_same_objects(play.got, wanted[: len(play.got)])
    if story.sees_all:
        assert len(play.got) == len(wanted)


def _assert_same_objects(got: Sequence[Json], wanted: Sequence[Json]) -> None:
    for number, (mine, theirs) in enumerate(zip(got, wanted, strict=True)):
        assert mine == theirs, f"object {number} is not what the provider sent"


__all__ = ["ASKING_REFUSED", "Account", "Play", "body_of", "judge", "objects_for_caller", "told_by"]
