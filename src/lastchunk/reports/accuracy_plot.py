"""The judged counter as one picture: exact shares by class, cold, warm and by the plain rule."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lastchunk.reports.accuracy_scores import Counted, Scores
from lastchunk.settlement.residuals import Side

_COLOURS = {Counted.COOKBOOK: "#b9b9b9", Counted.COLD: "#7aa6c2", Counted.WARM: "#1f5a7a"}
_BAR = 0.26
_ROW_INCHES = 0.5
_HEAD_INCHES = 1.6
_TITLES = {Side.PROMPT: "Prompts", Side.OUTPUT: "Outputs"}
_MOST_ROWS = 40
"""Groups drawn of each side, the largest; more would be unreadable."""


def can_plot() -> bool:
    """Whether matplotlib, the extra `plot`, is installed."""
    return find_spec("matplotlib") is not None


def write_plot(scores: Scores, path: Path) -> None:
    """Writes an SVG; the same scores give the same bytes. Raises OSError."""
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    figure_class: Any = import_module("matplotlib.figure").Figure
    sides = [side for side in Side if scores.groups(side)]
    rows = [_rows(scores, side) for side in sides]
    inches = sum(_HEAD_INCHES + _ROW_INCHES * len(of_side) for of_side in rows)
    with matplotlib.rc_context({"svg.hashsalt": "lastchunk", "font.size": 9}):
        figure = figure_class(figsize=(8, max(inches, 2)), layout="constrained")
        heights = [max(1, len(of_side)) for of_side in rows] or [1]
        axes = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)
        for place, side in enumerate(sides):
            _draw(axes[place][0], _TITLES[side], rows[place])
        figure.savefig(path, format="svg", metadata={"Date": None})


_Row = tuple[str, dict[Counted, float]]


def _rows(scores: Scores, side: Side) -> list[_Row]:
    """Each group's name with its exact shares in percent, the largest groups first."""
    groups = sorted(scores.groups(side), key=lambda found: -found[1][Counted.COLD].n)
    return [
        (
            f"{' / '.join(group)}  ({found[Counted.COLD].n:,})",
            {counter: 100 * score.exact / score.n for counter, score in found.items()},
        )
        for group, found in groups[:_MOST_ROWS]
    ]


def _draw(axes: Any, title: str, rows: list[_Row]) -> None:
    """Bars side by side, one row a group."""
    counters = [counter for counter in _COLOURS if any(counter in shares for _, shares in rows)]
    for number, counter in enumerate(counters):
        places = [row + (number - (len(counters) - 1) / 2) * _BAR for row in range(len(rows))]
        widths = [shares.get(counter, 0.0) for _, shares in rows]
        axes.barh(places, widths, height=_BAR, color=_COLOURS[counter], label=counter.value)
    axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("counted exactly, % of the exchanges")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
