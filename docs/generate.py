"""Writes docs/reference from the code. `make docs` runs it; a test fails when it was not run."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path

import click

import lastchunk
from lastchunk import settings, usage
from lastchunk.cli import COMMANDS, main
from lastchunk.ledger import tables
from lastchunk.meter import ending, phases
from lastchunk.pricing import own
from lastchunk.settings import Settings
from lastchunk.simulator import script

REFERENCE = Path(__file__).parent / "reference"
_NOTE = "<!-- Written by docs/generate.py from the code; `make docs` writes it anew. -->\n"


def pages() -> dict[str, str]:
    """Each page of the reference by its file name."""
    return {
        "command-line.md": _command_line(),
        "python.md": _python(),
        "settings.md": _settings(),
        "endings-and-bases.md": _endings_and_bases(),
        "prices.md": _prices(),
        "ledger.md": _ledger(),
        "simulator.md": _simulator(),
    }


def _command_line() -> str:
    parts = ["# Command line\n"]
    for name in COMMANDS:
        context = click.Context(main, info_name="lastchunk", max_content_width=88)
        command = main.get_command(context, name)
        assert command is not None
        own_context = click.Context(
            command, info_name=name, parent=context, terminal_width=88, max_content_width=88
        )
        parts.append(f"## lastchunk {name}\n\n```\n{command.get_help(own_context)}\n```\n")
    return "\n".join(parts)


def _python() -> str:
    parts = ["# Python\n"]
    for name in lastchunk.__all__:
        thing = getattr(lastchunk, name)
        title = name
        if inspect.isfunction(thing):
            title = f"{name}{inspect.signature(thing)}"
        parts.append(f"## `{title}`\n\n{_doc(thing)}\n")
        if inspect.isclass(thing) and issubclass(thing, Enum):
            parts.append(_members(thing))
    return "\n".join(parts)


def _settings() -> str:
    rows = ["# Settings\n", _doc(Settings), "", "| setting | default | meaning |", "|---|---|---|"]
    told = _attribute_docs(settings, "Settings")
    for name, field in Settings.model_fields.items():
        default = "–" if field.default is None else f"`{field.default}`"
        meaning = " ".join(told[name].split())
        rows.append(f"| `LASTCHUNK_{name.upper()}` | {default} | {meaning} |")
    return "\n".join(rows) + "\n"


def _endings_and_bases() -> str:
    parts = ["# Endings, bases and phases\n", "## Endings\n", _members(ending.Ending)]
    parts += ["## Bases\n", "The larger the number, the stronger.\n", _members(usage.Basis)]
    parts += ["## Phases of a call\n", _members(phases.Phase), "### What leads where\n"]
    parts += ["```mermaid", "stateDiagram-v2", "    [*] --> SENT"]
    arrows: dict[tuple[str, str], list[str]] = {}
    for event, moves in phases.TRANSITIONS.items():
        for start, end in moves.items():
            arrows.setdefault((start.name, end.name), []).append(event.__name__)
    parts += [f"    {a} --> {b}: {', '.join(events)}" for (a, b), events in arrows.items()]
    return "\n".join([*parts, "```", ""])


def _prices() -> str:
    return f"# The price file\n\n{inspect.getdoc(own)}\n"


def _ledger() -> str:
    parts = ["# The ledger's tables\n", inspect.getdoc(tables) or "", ""]
    for table in tables.metadata.sorted_tables:
        parts += [f"## {table.name}\n", "| column | type | |", "|---|---|---|"]
        for column in table.columns:
            remark = "key" if column.primary_key else "" if column.nullable else "not null"
            parts.append(f"| `{column.name}` | {str(column.type).lower()} | {remark} |")
        parts.append("")
    return "\n".join(parts)


def _simulator() -> str:
    parts = ["# The simulator's scripts\n", _doc(script.read_script), ""]
    for kind in (script.Script, script.Fault):
        parts += [f"## {kind.__name__}\n", _doc(kind), "", "```python"]
        for name, field in kind.__dataclass_fields__.items():
            default = "" if not _has_default(field) else f" = {field.default!r}"
            parts.append(f"{name}: {field.type}{default}")
        parts.append("```\n")
    for name in ("Kind", "Language", "ReasoningShown", "UsageStyle", "FaultKind", "Moment"):
        values = ", ".join(f"`{value}`" for value in getattr(script, name).__args__)
        parts.append(f"- `{name}`: {values}")
    return "\n".join(parts) + "\n"


def _has_default(field: object) -> bool:
    return type(getattr(field, "default", None)).__name__ != "_MISSING_TYPE"


def _members(kind: type[Enum]) -> str:
    module = sys.modules[kind.__module__]
    told = _attribute_docs(module, kind.__name__)
    rows = ["| name | value | meaning |", "|---|---|---|"]
    for member in kind:
        meaning = " ".join(told.get(member.name, "").split())
        rows.append(f"| {member.name} | `{member.value}` | {meaning} |")
    return "\n".join([*rows, ""])


def _attribute_docs(module: object, class_name: str) -> dict[str, str]:
    """The docstring written below each attribute of a class."""
    tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    body = next(
        node.body
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    return dict(_documented(body))


def _documented(body: list[ast.stmt]) -> Iterator[tuple[str, str]]:
    for node, following in pairwise(body):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        target = node.target if isinstance(node, ast.AnnAssign) else target
        is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
        if isinstance(target, ast.Name) and is_text:
            yield target.id, str(following.value.value)  # type: ignore[attr-defined]


def _doc(thing: object) -> str:
    return inspect.getdoc(thing) or ""


def write() -> None:
    """Write every page; remove pages that no longer exist."""
    REFERENCE.mkdir(exist_ok=True)
    wanted = pages()
    for old in REFERENCE.glob("*.md"):
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        (REFERENCE / name).write_text(_NOTE + text, encoding="utf-8")


if __name__ == "__main__":
    write()
