"""A call to make, and what the user of a client library sees of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MODEL = "gpt-4o-mini"
PROMPT = "Tell me of the sea."
TOOL = "look_up"
TOOL_PURPOSE = "Looks up a place."
PARAMETERS = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Call:
    """`leave_after` is how many pieces the user reads before leaving; 0 reads to the end."""

    base_url: str
    name: str
    dialect: str
    headers: dict[str, str]
    leave_after: int = 0
    tools: bool = False

    @property
    def is_chat(self) -> bool:
        return self.dialect == "chat"

    @property
    def client(self) -> dict[str, Any]:
        """What openai's own client is made from."""
        return {
            "base_url": self.base_url,
            "api_key": "sk-test",
            "default_headers": self.headers,
        }


@dataclass
class Saw:
    """Filled while pieces come, so that what came before an error is here."""

    name: str
    pieces: int = 0
    text: str = ""
    tool: str = ""
    finish: str | None = None
    usage: tuple[int, int] | None = None
    """Input and output tokens, as the library shows them."""
    error: str | None = None
    message: str = ""
    status: int | None = None
    code: str | None = None
    error_usage: bool = False
    """The error's body tells usage."""
    seconds: float = 0.0
    attempts: int = 0
    """HTTP requests that were made."""
    notes: list[str] = field(default_factory=list)

    def heard(self, text: str | None, call: Call) -> bool:
        """A piece of text came. Whether the user leaves now."""
        if text:
            self.pieces += 1
            self.text += text
        return self.pieces == call.leave_after > 0

    def failed(self, error: Exception) -> None:
        kind = type(error)
        library = kind.__module__.partition(".")[0]
        self.error = kind.__name__ if library == "builtins" else f"{library}.{kind.__name__}"
        self.message = str(error)
        self.status = getattr(error, "status_code", None)
        self.code = getattr(error, "code", None)
        body = getattr(error, "body", None)
        self.error_usage = isinstance(body, dict) and "usage" in body
