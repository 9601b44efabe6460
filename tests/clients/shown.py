"""What a library showed, as rows of the page's tables; and the rows that stand there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from client_environment import HERE, Saw

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "how-to" / "what-clients-show.md"
TITLES = {
    "openai": "openai-python",
    "openai-3": "openai-python",
    "node": "openai-node",
    "langchain": "LangChain",
    "llamaindex": "LlamaIndex",
    "agents": "Agents SDK",
    "pydantic-ai": "pydantic-ai",
}
_PACKAGES = {
    "openai": "openai",
    "langchain": "langchain-openai",
    "llamaindex": "llama-index-llms-openai",
    "agents": "openai-agents",
    "pydantic-ai": "pydantic-ai-slim",
}
_REFUSED = ("no budget", "busy", "used up")
_STOPPED = ("stopped", "stopped tool call")

Shown = Mapping[str, Mapping[str, Saw]]
"""By dialect and name of the case."""


def rows_of(library: str, shown: Shown) -> list[str]:
    """The rows that this library should have, table by table."""
    named = f"| {TITLES[library]} {version_of(library)}"
    tables = [
        _by_dialect(shown, lambda by_case: " | ".join(_refused(by_case[n]) for n in _REFUSED))
    ]
    tables += [_by_dialect(shown, lambda by_case, n=n: _stopped(by_case[n])) for n in _STOPPED]
    return [f"{named} | {row} |" for table in tables for row in table]


def _by_dialect(shown: Shown, row: Callable[[Mapping[str, Saw]], str]) -> list[str]:
    """One row where both dialects show the same."""
    rows = {dialect: row(by_case) for dialect, by_case in shown.items()}
    if len(set(rows.values())) == 1:
        return [f"both | {next(iter(rows.values()))}"]
    return [f"{dialect} | {told}" for dialect, told in rows.items()]


def _refused(saw: Saw) -> str:
    return f"`{saw.error}`, {saw.attempts}"


def _stopped(saw: Saw) -> str:
    came = "yes" if saw.text or saw.tool else "no"
    return f"`{saw.error}` | {came} | {saw.finish or 'no'} | {'yes' if saw.usage else 'no'}"


def rows_on_the_page(library: str) -> list[str]:
    named = f"| {TITLES[library]} {version_of(library)} |"
    return [line for line in PAGE.read_text().splitlines() if line.startswith(named)]


def version_of(library: str) -> str:
    """The pinned version of the library that was run."""
    if library == "node":
        asked = json.loads((ROOT / "tests" / "node" / "package.json").read_text())
        return str(asked["dependencies"]["openai"])
    is_newest = library == "openai-3"
    pinned = (ROOT if is_newest else HERE) / "constraints.txt"
    package = "openai" if is_newest else _PACKAGES[library]
    found = re.search(rf"^{package}==(.+)$", pinned.read_text(), re.MULTILINE)
    assert found is not None, f"{package} is not in {pinned}"
    return found[1]
