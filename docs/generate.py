"""Writes docs/reference from the code. `make docs` runs it; a test fails when it was not run."""

from __future__ import annotations

import ast
import inspect
import json
import sys
from collections.abc import Iterator
from enum import Enum
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

import lastchunk
from lastchunk import config, settings, usage
from lastchunk.admin import openapi_document
from lastchunk.cli import COMMANDS, main
from lastchunk.leaving import providers, rules
from lastchunk.ledger import tables
from lastchunk.meter import departure, ending, phases
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
        "rules.md": _rules(),
        "endings-and-bases.md": _endings_and_bases(),
        "prices.md": _prices(),
        "when-the-client-leaves.md": _leaving(),
        "ledger.md": _ledger(),
        "simulator.md": _simulator(),
        "admin-api.md": _admin_api(),
        "admin-api.json": json.dumps(openapi_document(), indent=1, ensure_ascii=False) + "\n",
    }


def _command_line() -> str:
    parts = ["# Command line\n"]
    for name in COMMANDS:
        context = click.Context(
            main, info_name="lastchunk", max_content_width=88, help_option_names=["-h", "--help"]
        )
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


def _rules() -> str:
    """The tables of lastchunk.toml, which SIGHUP reads again."""
    parts = ["# Rules in lastchunk.toml\n", f"{_doc(config)}\n"]
    tables = {
        "[upstreams.NAME]": config.UpstreamRow,
        "[[limits]]": config.LimitRow,
    }
    for title, kind in tables.items():
        told = _attribute_docs(config, kind.__name__)
        parts += [
            f"## `{title}`\n",
            _doc(kind),
            "",
            "| name | default | meaning |",
            "|---|---|---|",
        ]
        for name, field in kind.model_fields.items():
            default = "" if field.is_required() else f"`{field.default!r}`"
            meaning = " ".join(told.get(name, "").split())
            parts.append(f"| `{name}` | {default} | {meaning} |")
        parts.append("")
    return "\n".join(parts)


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


def _leaving() -> str:
    parts = ["# When the client leaves\n", _doc(rules), "", "## What providers do after a cancel\n"]
    parts += [_doc(providers), "", "| provider | hosts | models | after a cancel | source | read |"]
    parts += ["|---|---|---|---|---|---|"]
    for row in providers.PROVIDERS:
        hosts = ", ".join(f"`{host}`" for host in row.hosts) or "yours: name it with `upstream`"
        models = ", ".join(f"`{model}…`" for model in row.models) or "all"
        after = row.after_cancel.value
        parts.append(
            f"| `{row.name}` | {hosts} | {models} | {after} | {row.source} | {row.dated} |"
        )
    for title, kind in (
        ("What it may do", departure.AfterCancel),
        ("What may be done", departure.LeavePolicy),
        ("What was done", departure.Done),
        ("Why", departure.Why),
        ("What cut a drain", departure.Cut),
    ):
        parts += [f"\n## {title}\n", _members(kind)]
    return "\n".join(parts)


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


def _admin_api() -> str:
    document = openapi_document()
    about = document["info"]["description"]
    parts = [
        "# The admin API\n",
        about,
        "\nThe same as OpenAPI: [admin-api.json](admin-api.json).\n",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += [f"## {method.upper()} {path}\n", f"{operation['summary']}.\n"]
            parts += _admin_operation(operation)
    parts += ["## What is asked and answered\n"]
    for name, schema in document["components"]["schemas"].items():
        parts += [f"### {name}\n", f"{schema.get('description', '')}\n", *_fields_of(schema)]
    return "\n".join(parts)


def _admin_operation(operation: dict[str, Any]) -> list[str]:
    asked = {one["name"]: one["schema"] for one in operation["parameters"]}
    lines = _fields_of({"properties": asked})
    if (body := operation.get("requestBody")) is not None:
        lines.append(f"- body: {_type_of(body['content']['application/json']['schema'])}")
    for status, answer in operation["responses"].items():
        shape = _type_of(answer["content"]["application/json"]["schema"])
        lines.append(
            f"- {status}: {shape if status < '400' else answer['description'].rstrip('.')}"
        )
    return [*lines, ""]


def _fields_of(schema: dict[str, Any]) -> list[str]:
    fields = schema.get("properties", {})
    if not fields:
        return [", ".join(f"`{one}`" for one in schema.get("enum", ())) + "\n"] * ("enum" in schema)
    rows = ["| field | type | meaning |", "|---|---|---|"]
    for name, field in fields.items():
        default = f" Default: `{json.dumps(field['default'])}`." if "default" in field else ""
        meaning = field.get("description", "").replace("|", "\\|")
        rows.append(f"| `{name}` | {_type_of(field)} | {meaning}{default} |")
    return [*rows, ""]


def _type_of(schema: dict[str, Any]) -> str:
    """A JSON schema in a few words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_type_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{one}`" for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type_of(schema['items'])}"
    if schema.get("type") == "object":
        return f"object of {_type_of(schema['additionalProperties'])}"
    return str(schema.get("format", schema.get("type", "any")))


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
    for old in REFERENCE.iterdir():
        if old.name not in wanted:
            old.unlink()
    for name, text in wanted.items():
        note = _NOTE if name.endswith(".md") else ""
        (REFERENCE / name).write_text(note + text, encoding="utf-8")


if __name__ == "__main__":
    write()
