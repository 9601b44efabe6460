"""The judged counter as tables: prompts, outputs, the plain rule, the prefixes, what was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from lastchunk.reports.accuracy_classes import OutputClass, PromptClass
from lastchunk.reports.accuracy_exchange import Skipped
from lastchunk.reports.accuracy_prefixes import PrefixScores
from lastchunk.reports.accuracy_scores import Counted, Dimension, Group, Score, Scores
from lastchunk.reports.table import Cell, Column, Kind, Table
from lastchunk.settlement.residuals import Side

_ORDER = {str(name): place for place, name in enumerate((*PromptClass, *OutputClass))}

_LEARNED_NOTES = (
    "exact, ±2%, ±2tok, inside: % of the exchanges. mean, p95: the error in % of the truth."
    " width: high minus low, in % of the truth, on average. One exchange counts with at most"
    " 10,000 %.",
    "cold: without learning. warm: learned from the exchanges before, in order. shape known: the"
    " derivable ones of which one of the same shape was learned before.",
)


@dataclass(slots=True)
class ReadLines:
    """What became of the lines that were read."""

    judged: int = 0
    skipped: Counter[Skipped] = field(default_factory=Counter)
    too_old: int = 0
    disagreeing: int = 0

    @property
    def lines(self) -> int:
        return self.judged + self.too_old + sum(self.skipped.values())


def accuracy_tables(scores: Scores, prefixes: PrefixScores | None, read: ReadLines) -> list[Table]:
    """All tables of a run; those of a side without exchanges are empty."""
    tables = [
        _learned_table("prompts", "Prompts", scores, Side.PROMPT),
        _learned_table("outputs", "Outputs", scores, Side.OUTPUT),
        _cookbook_table(scores),
    ]
    if prefixes is not None:
        tables.append(_prefix_table(prefixes))
    return [*tables, _read_table(read)]


def flat_table(scores: Scores) -> Table:
    """Everything in one table, a row for each side, group and counter: for CSV."""
    rows = [
        (side.value, *row)
        for side in Side
        for row in _rows(scores, side, (Counted.COLD, Counted.WARM, Counted.COOKBOOK))
    ]
    columns = (Column("side", "side"), *_keys(scores), *_SCORE_COLUMNS)
    return Table("accuracy", "", columns, tuple(rows))


def _learned_table(name: str, title: str, scores: Scores, side: Side) -> Table:
    rows = tuple(_rows(scores, side, (Counted.COLD, Counted.WARM)))
    return Table(
        name=name,
        title=title,
        columns=(*_keys(scores), *_SCORE_COLUMNS),
        rows=rows,
        notes=_LEARNED_NOTES if side is Side.OUTPUT else (),
        empty="No exchange of these has usage for this side.",
    )


def _cookbook_table(scores: Scores) -> Table:
    """The same prompts by the rule that is usually copied; it has no intervals."""
    columns = (*_keys(scores), *_SCORE_COLUMNS)
    kept = [place for place, column in enumerate(columns) if column.name not in _OF_INTERVALS]
    rows = (tuple(row[place] for place in kept) for row in _rows(scores, Side.PROMPT, _PLAIN))
    return Table(
        name="cookbook",
        title="The same prompts by the plain cookbook rule",
        columns=tuple(columns[place] for place in kept),
        rows=tuple(rows),
        empty="No prompts.",
    )


_PLAIN = (Counted.COOKBOOK,)


def _keys(scores: Scores) -> tuple[Column, ...]:
    return tuple(Column(dimension.value, dimension.value) for dimension in scores.by)


_SCORE_COLUMNS = (
    Column("counted", ""),
    Column("exchanges", "n", Kind.NUMBER),
    Column("exact_percent", "exact", Kind.NUMBER),
    Column("within_2_percent_percent", "±2%", Kind.NUMBER),
    Column("within_2_tokens_percent", "±2tok", Kind.NUMBER),
    Column("mean_error_percent", "mean", Kind.NUMBER),
    Column("p95_error_percent", "p95", Kind.NUMBER),
    Column("inside_percent", "inside", Kind.NUMBER),
    Column("mean_width_percent", "width", Kind.NUMBER),
    Column("median_width_percent", "median width", Kind.NUMBER, shown=False),
)
_OF_INTERVALS = {"counted", "inside_percent", "mean_width_percent", "median_width_percent"}


def _rows(scores: Scores, side: Side, counters: Sequence[Counted]) -> Iterable[tuple[Cell, ...]]:
    """The groups in the order of their classes, then their sums."""
    groups = sorted(scores.groups(side), key=lambda found: _place(found[0], scores.by))
    blank = (None,) * (len(scores.by) - 1)
    for group, found in groups:
        yield from _of_group(group, found, counters)
    for name, found in scores.whole(side):
        yield from _of_group((name, *blank), found, counters)


def _place(group: Group, by: tuple[Dimension, ...]) -> tuple[tuple[int, str], ...]:
    is_class = [dimension is Dimension.CLASS for dimension in by]
    return tuple(
        (_ORDER.get(name, len(_ORDER)) if known else 0, name)
        for name, known in zip(group, is_class, strict=True)
    )


def _of_group(
    key: tuple[Cell, ...], found: dict[Counted, Score], counters: Sequence[Counted]
) -> Iterable[tuple[Cell, ...]]:
    for counter in counters:
        if (score := found.get(counter)) is not None:
            yield (*key, counter.value, *_cells(score, intervals=counter is not Counted.COOKBOOK))


def _cells(score: Score, *, intervals: bool) -> tuple[Cell, ...]:
    shares = (score.exact, score.near_share, score.near_tokens)
    ends: tuple[Cell, ...] = (None, None, None)
    if intervals:
        widths = score.widths
        middle = _digits(widths.quantile(0.5))
        ends = (_percent(score.inside, score.n), _digits(widths.mean), middle)
    return (
        score.n,
        *(_percent(share, score.n) for share in shares),
        _digits(score.errors.mean),
        _digits(score.errors.quantile(0.95)),
        *ends,
    )


def _percent(part: int, whole: int) -> Decimal:
    """With one digit, and never 100.0 for what is not all or 0.0 for what is not none."""
    percent = (Decimal(100 * part) / whole).quantize(Decimal("0.1"))
    if percent == 100 and part < whole:
        return Decimal("99.9")
    return Decimal("0.1") if percent == 0 and part else percent


def _digits(percent: float) -> Decimal:
    """With as many digits as say something."""
    step = "1" if percent >= 100 else "0.1" if percent >= 10 else "0.01"
    return Decimal(percent).quantize(Decimal(step))


def _prefix_table(prefixes: PrefixScores) -> Table:
    rows = [
        (source, *family, streams, score.n, *_cells(score, intervals=True)[1:8])
        for source, family, streams, score in prefixes.rows()
    ]
    return Table(
        name="prefixes",
        title="Finished streams cut short at a chunk, against the chunks' own counts",
        columns=(
            Column("known_by", "known by"),
            Column("family", "family"),
            Column("streams", "streams", Kind.NUMBER),
            Column("cuts", "cuts", Kind.NUMBER),
            *_SCORE_COLUMNS[2:-1],
        ),
        rows=tuple(rows),
        empty="No stream here has logprobs or running usage.",
    )


def _read_table(read: ReadLines) -> Table:
    skipped = [(f"skipped: {name.value}", read.skipped[name]) for name in Skipped]
    cells: list[tuple[str, int]] = [
        ("lines read", read.lines),
        ("judged", read.judged),
        *skipped,
        ("skipped: before --since", read.too_old),
        ("judged, though the answer says other usage than the line", read.disagreeing),
    ]
    return Table(
        name="read",
        title="What was read",
        columns=(Column("what", "what"), Column("lines", "lines", Kind.NUMBER)),
        rows=tuple(cell for cell in cells if cell[1] or cell[0] in ("lines read", "judged")),
    )
