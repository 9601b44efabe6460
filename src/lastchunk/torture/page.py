"""A run as one HTML page: nothing is loaded, light and dark, readable without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from lastchunk.torture.judge import Verdict
from lastchunk.torture.matrix import Cell, Door, Fault, Moment, expected
from lastchunk.torture.result import Mark, Result
from lastchunk.wire.dialect import Dialect

_DOORS = {
    Door.SYNC: "In process, sync",
    Door.ASYNC: "In process, async",
    Door.GATEWAY: "Through the gateway",
}
_CLASSES = {
    Mark.HELD: "held",
    Mark.BROKEN: "broken",
    Mark.NOT_APPLICABLE: "none",
    Mark.NOT_PLAYED: "unplayed",
}
_WORDS = {
    Mark.HELD: "every promise held",
    Mark.BROKEN: "a promise was broken",
    Mark.NOT_APPLICABLE: "not applicable",
    Mark.NOT_PLAYED: "not played",
}

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --dim: #63707c; --paper: #fbfbfa; --line: #dfe3e6;
  --held: #2f9e63; --broken: #d13438; --none: #dde1e4; --card: #ffffff; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --dim: #98a4af; --paper: #15181b;
  --line: #2c3238; --held: #3fb97a; --broken: #ff6b6b; --none: #333a41; --card: #1b1f23; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 68rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 2.5rem 0 .5rem; }
p { margin: .25rem 0; max-width: 46rem; } .dim { color: var(--dim); }
code, pre { font: 13px/1.5 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .75rem 1rem; background: var(--card); border-radius: 6px;
  border: 1px solid var(--line); margin: .5rem 0; }
ul.promises { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; }
ul.promises b { margin-right: .4rem; } .ok { color: var(--held); } .no { color: var(--broken); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 44rem; }
th { text-align: left; font-weight: 500; color: var(--dim); font-size: .85rem; }
th, td { padding: .38rem .6rem .38rem 0; border-bottom: 1px solid var(--line); }
tbody th { color: var(--ink); font-size: .92rem; white-space: nowrap; }
.cell { display: inline-flex; gap: 3px; margin-right: 9px; vertical-align: middle; }
.cell > * { width: 13px; height: 13px; border-radius: 3px; display: block; }
.held { background: var(--held); } .broken { background: var(--broken); }
.none { background: var(--none); } .unplayed { border: 1px dashed var(--line); }
.legend { display: flex; flex-wrap: wrap; gap: .4rem 1.5rem; align-items: center; }
.legend .cell { margin-right: 6px; }
dl.reasons { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; }
dl.reasons dt { text-align: right; color: var(--dim); } dl.reasons dd { margin: 0; }
article { border-left: 3px solid var(--broken); padding-left: 1rem; margin: 1.25rem 0; }
article h3 { font-size: .95rem; margin: 0; font-family: ui-monospace, monospace; }
"""


def as_page(result: Result) -> str:
    """The whole page."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>lastchunk torture</title><style>{_STYLE}</style></head><body>",
        *_head(result),
        *(line for door in result.doors() for line in _grid(result, door)),
        *_broken(result),
        *_reasons(result),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(result: Result) -> Iterator[str]:
    held = len(result.verdicts) - len(result.broken)
    kind = "ok" if not result.broken else "no"
    yield "<h1>The fault matrix</h1>"
    yield (
        f'<p><b class="{kind}">{held} of {len(result.verdicts)} cells held</b>,'
        f" {result.calls} calls each, beside the provider’s true bill. Seed {result.seed},"
        f" {result.seconds:.0f} s, {escape(result.finished)} UTC.</p>"
    )
    if result.left_out is not None:
        yield f'<p class="dim">{escape(result.left_out)}</p>'
    yield '<ul class="promises">'
    for promise, cells in result.promises():
        told = "ok" if not cells else f"{cells} broken"
        kind = "ok" if not cells else "no"
        yield f'<li><b class="{kind}">{told}</b>{escape(promise.value)}</li>'
    yield "</ul>"
    ledgers = " and then ".join(store.value for store in result.stores)
    yield '<p class="legend dim">'
    yield f"<span>One square a cell: {', '.join(Dialect)}; {ledgers}.</span>"
    for mark in (Mark.HELD, Mark.BROKEN, Mark.NOT_APPLICABLE):
        square = f'<span class="cell"><span class="{_CLASSES[mark]}"></span></span>'
        yield f"<span>{square}{_WORDS[mark]}</span>"
    yield "</p>"


def _grid(result: Result, door: Door) -> Iterator[str]:
    yield f"<h2>{_DOORS[door]}</h2>"
    titles = "".join(f'<th scope="col">{moment.replace("-", " ")}</th>' for moment in Moment)
    yield f'<div class="scroll"><table><thead><tr><th></th>{titles}</tr></thead><tbody>'
    for fault in Fault:
        cells = "".join(
            f"<td>{''.join(_squares(result, each))}</td>"
            for each in (result.marks(door, fault, moment) for moment in Moment)
        )
        yield f'<tr><th scope="row">{fault}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _squares(result: Result, ledgers: list[list[tuple[Cell, Mark]]]) -> Iterator[str]:
    for marks in ledgers:
        yield '<span class="cell">'
        for cell, mark in marks:
            reason = expected(cell)
            why = f": {reason}" if isinstance(reason, str) else ""
            told = escape(f"{cell.dialect}, {cell.ledger}: {_WORDS[mark]}{why}")
            square = f'class="{_CLASSES[mark]}" title="{told}"'
            if mark is Mark.BROKEN:
                yield f'<a href="#{cell.name}" {square} aria-label="{told}"></a>'
            else:
                yield f"<span {square}></span>"
        yield "</span>"


def _broken(result: Result) -> Iterator[str]:
    if not result.broken:
        return
    yield "<h2>Broken promises</h2>"
    for verdict in result.broken:
        yield f'<article id="{verdict.cell.name}"><h3>{verdict.cell.name}</h3>'
        yield from _findings(verdict)
        yield f"<pre>{escape(result.replay(verdict.cell))}</pre></article>"


def _findings(verdict: Verdict) -> Iterator[str]:
    for one in verdict.broken:
        yield (
            f'<p><b>{escape(one.promise.value)}</b> <span class="dim">call {one.call}</span><br>'
            f"expected {escape(one.expected)}<br>found {escape(one.found)}</p>"
        )


def _reasons(result: Result) -> Iterator[str]:
    reasons = result.not_applicable()
    if not reasons:
        return
    yield '<h2>Not applicable</h2><dl class="reasons">'
    for reason, cells in reasons.items():
        yield f"<dt>{cells}</dt><dd>{escape(reason)}</dd>"
    yield "</dl>"
