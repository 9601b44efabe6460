"""One call from its reservation to its cost: what happened, and where each number is from."""

from __future__ import annotations

from collections.abc import Sequence

from lastchunk.ledger import CallRecord, Entry, EntryKind
from lastchunk.ledger.entries import ADJUSTMENT
from lastchunk.meter.ending import Ending
from lastchunk.meter.observation import Observation
from lastchunk.money import format_usd
from lastchunk.pricing.book import PriceBook
from lastchunk.reports.calls import OPEN, cost_cell, token_cell
from lastchunk.reports.explain_cost import cost_table
from lastchunk.reports.explain_departure import departure_table
from lastchunk.reports.table import Cell, Column, Kind, Span, Table
from lastchunk.reports.words import BASES, ENDINGS, PARTS, done_in_words, reason_in_words
from lastchunk.usage import USAGE_PARTS, Quantity, Usage

_WAYS = {"python": "in process", "gateway": "through the gateway"}


def explain_tables(
    record: CallRecord, attempts: Sequence[CallRecord], book: PriceBook
) -> list[Table]:
    """Everything about one call. `attempts` are all of its logical call, itself included."""
    tables = [_call_table(record), _timeline(record), _numbers(record)]
    if reasons := _reasons_table(record):
        tables.append(reasons)
    tables.append(cost_table(record, book))
    if departure := departure_table(record, observation_of(record)):
        tables.append(departure)
    if len(attempts) > 1 or record.call.attempt_of is not None:
        tables.append(_attempts_table(record, attempts))
    tables.append(_entries_table(record))
    return tables


def observation_of(record: CallRecord) -> Observation | None:
    """The evidence: the settlement's, or while the call is open what was last written down."""
    return record.settlement.observation if record.settlement is not None else record.seen


def latest_usage(record: CallRecord) -> Usage | None:
    """The usage as it stands: the latest correction's that says one, else the settlement's."""
    for correction in reversed(record.corrections):
        if correction.usage is not None:
            return correction.usage
    return record.settlement.usage if record.settlement is not None else None


def _call_table(record: CallRecord) -> Table:
    call, standing = record.call, record.standing
    request, seen = call.request, observation_of(record)
    ending = record.settlement.ending if record.settlement is not None else None
    cells: tuple[tuple[Column, Cell], ...] = (
        (Column("call_id", "call", Kind.ID), call.call_id),
        (Column("account", "account"), call.account),
        (Column("tags", "tags"), " ".join(f"{key}={value}" for key, value in call.tags) or None),
        (Column("attempt_of", "a retry of", Kind.ID), call.attempt_of),
        (Column("way", "came in"), _WAYS.get(call.way, call.way)),
        (Column("upstream", "sent to"), f"{request.upstream}, {_dialect(record)}"),
        (
            Column("model", "model"),
            _asked_and_served(request.model, seen.model_served if seen else None),
        ),
        (
            Column("tier", "service tier"),
            _asked_and_served(request.service_tier, seen.tier_served if seen else None),
        ),
        (Column("response_id", "provider's id", Kind.ID), seen.response_id if seen else None),
        (Column("process_id", "process", Kind.ID), record.process_id),
        (Column("ending", "ending"), ending.value if ending is not None else OPEN),
        (Column("why", "why"), _why(record, ending, seen)),
        (Column("cost_usd", "cost", Kind.USD, spread=True), cost_cell(record, standing)),
        (Column("charge_usd", "charge", Kind.USD), standing.charge_nano),
        (Column("charge_reason", "charged as"), _charge_reason(record)),
    )
    return Table(
        name="call",
        title="",
        columns=tuple(column for column, _ in cells),
        rows=(tuple(cell for _, cell in cells),),
        vertical=True,
    )


def _dialect(record: CallRecord) -> str:
    request = record.call.request
    if request.exact:
        return f"{request.dialect}, exact mode (replayed as a stream)"
    return f"{request.dialect}{', streamed' if request.stream else ''}"


def _asked_and_served(asked: str | None, served: str | None) -> str | None:
    if served is None or asked is None or asked == served:
        return asked or served
    return f"{asked}, served by {served}"


def _why(record: CallRecord, ending: Ending | None, seen: Observation | None) -> str:
    if ending is None:
        if seen is None:
            return "it is under way; nothing was written down of it yet"
        return f"it is under way; last written down: {seen.bytes:,} bytes, {_phase(seen)}"
    details = []
    if seen is not None:
        details = [
            f"status {seen.status}" if seen.status is not None else "no status",
            f"the answer had come as far as: {_phase(seen)}",
        ]
        details += [f"finish reason {seen.finish_reason}"] if seen.finish_reason else []
        details += [f"failure {seen.failure_code}"] if seen.failure_code else []
        details += ["the gateway was shutting down"] if seen.shut_down else []
    return "; ".join([ENDINGS[ending], *details])


def _phase(seen: Observation) -> str:
    return seen.phase.name.lower()


def _charge_reason(record: CallRecord) -> str | None:
    """What was charged by which rule, and what was given back of it."""
    if record.settlement is None:
        return None
    told, changes = record.settlement.charge.reason, []
    for one in record.corrections:
        if one.charge is None:
            continue
        if one.correction_id.startswith(ADJUSTMENT):
            changes.append(one.charge.reason)
        else:
            told = one.charge.reason
    return "; ".join([told, *dict.fromkeys(changes)])


def _timeline(record: CallRecord) -> Table:
    opened = record.call.opened_ms
    seen = observation_of(record)
    moments: list[tuple[int, str, str]] = [(opened, "reserved", _held(record))]
    if seen is not None:
        observed = (
            (seen.first_byte_ms, "first byte", f"status {seen.status}"),
            (seen.first_token_ms, "first token", ""),
            (seen.last_byte_ms, "last byte", f"{seen.frames:,} frames, {seen.bytes:,} bytes"),
        )
        moments += [(at, what, detail) for at, what, detail in observed if at is not None]
    if seen is not None and seen.departure is not None:
        moments.append((seen.departure.left_ms, "caller left", done_in_words(seen.departure)))
    moments += [
        (entry.occurred_ms, *_occurred(entry))
        for entry in record.entries
        if entry.kind is not EntryKind.RESERVED
    ]
    moments.sort(key=lambda moment: moment[0])  # stable: what is told first stays first
    return Table(
        name="timeline",
        title="What happened",
        columns=(
            Column("at", "time (UTC)", Kind.MOMENT),
            Column("after_ms", "ms", Kind.NUMBER),
            Column("event", "event"),
            Column("detail", ""),
        ),
        rows=tuple((at, at - opened, what, detail) for at, what, detail in moments),
    )


def _held(record: CallRecord) -> str:
    forecast = record.call.forecast
    if forecast.hold is None:
        return "held nothing: no price is known"
    most = forecast.output_tokens.high
    return f"held {format_usd(forecast.hold)}: at most {most:,} tokens of output"


def _occurred(entry: Entry) -> tuple[str, str]:
    if entry.kind is EntryKind.CORRECTED:
        return "corrected", f"{entry.reason} ({entry.correction_id})"
    kind = "settled" if entry.kind is EntryKind.SETTLED else "released: nothing was used"
    return "ended", f"{entry.ending}; {kind}"


def _numbers(record: CallRecord) -> Table:
    usage, standing = latest_usage(record), record.standing
    rows: list[tuple[Cell, ...]] = []
    for name in USAGE_PARTS:
        tokens: Quantity | None = getattr(usage, name) if usage is not None else None
        if tokens is not None:
            span = Span(tokens.low, tokens.best, tokens.high, tokens.basis)
            rows.append((PARTS[name], span, BASES[tokens.basis]))
    if usage is None and (cell := token_cell(standing.tokens.input)) is not None:
        rows.append((PARTS["input_tokens"], cell, None))
    return Table(
        name="tokens",
        title="Where the numbers are from",
        columns=(
            Column("part", "part"),
            Column("tokens", "tokens", Kind.TOKENS, spread=True, based=True),
            Column("source", "source"),
        ),
        rows=tuple(rows),
        empty=_no_numbers(record),
    )


def _no_numbers(record: CallRecord) -> str:
    if record.is_open:
        return "None yet: the call is under way."
    return "None: there is proof that nothing was used."


def _reasons_table(record: CallRecord) -> Table | None:
    reasons = record.settlement.reasons if record.settlement is not None else ()
    if not reasons:
        return None
    corrected = any(one.usage is not None for one in record.corrections)
    return Table(
        name="reasons",
        title="Why they were not exact at first" if corrected else "Why they are not exact",
        columns=(Column("reason", "reason"), Column("meaning", "meaning")),
        rows=tuple((name, reason_in_words(name)) for name in reasons),
    )


def _attempts_table(record: CallRecord, attempts: Sequence[CallRecord]) -> Table:
    """The first attempt, and its retries indented under it: a provider may bill each."""
    rows = [
        (
            _attempt_name(one, number, record),
            one.call_id,
            one.call.opened_ms,
            one.settlement.ending.value if one.settlement is not None else OPEN,
            cost_cell(one, one.standing),
        )
        for number, one in enumerate(attempts)
    ]
    costs = [cost for one in attempts if (cost := one.standing.cost) is not None]
    whole = Span(
        sum(cost.low for cost in costs),
        sum(cost.best for cost in costs),
        sum(cost.high for cost in costs),
    )
    missing = record.call.attempt_of
    is_there = any(one.call_id == missing for one in attempts)
    notes = () if missing is None or is_there else (f"The first attempt, {missing}, is not here.",)
    return Table(
        name="attempts",
        title="Attempts of the same call",
        columns=(
            Column("attempt", "attempt"),
            Column("call_id", "call", Kind.ID, below=1, plain=True),
            Column("opened_at", "time (UTC)", Kind.MOMENT),
            Column("ending", "ending"),
            Column("cost_usd", "cost", Kind.USD, spread=True),
        ),
        rows=tuple(rows),
        totals=("together", None, None, None, whole),
        notes=notes,
    )


def _attempt_name(one: CallRecord, number: int, record: CallRecord) -> str:
    name = "first" if one.call.attempt_of is None else f"  retry {number}"
    return f"{name} (this)" if one.call_id == record.call_id else name


def _entries_table(record: CallRecord) -> Table:
    return Table(
        name="entries",
        title="What the ledger holds",
        columns=(
            Column("seq", "entry", Kind.NUMBER),
            Column("recorded_at", "written (UTC)", Kind.MOMENT),
            Column("kind", "kind"),
            Column("held_usd", "held", Kind.USD),
            Column("cost_usd", "cost", Kind.USD),
            Column("charge_usd", "charge", Kind.USD),
        ),
        rows=tuple(
            (
                entry.seq,
                entry.recorded_ms,
                entry.kind.value,
                _held_by(entry),
                entry.cost.best if entry.cost is not None else None,
                entry.charge_nano,
            )
            for entry in record.entries
        ),
    )


def _held_by(entry: Entry) -> int | None:
    """What an entry takes, or gives back."""
    if entry.held_nano is None or entry.kind is EntryKind.CORRECTED:
        return None
    return entry.held_nano if entry.kind is EntryKind.RESERVED else -entry.held_nano
