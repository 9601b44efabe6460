"""The endpoints that are metered, and how a request's path names them."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """One metered endpoint of the OpenAI API."""

    CHAT = "chat"
    RESPONSES = "responses"
    COMPLETIONS = "completions"


def dialect_of(method: str, path: str) -> Dialect | None:
    """The dialect of `POST …/chat/completions`, `…/responses` or `…/completions`; else None.

    `path` is the URL's path without its query. Whatever stands before (a version, an Azure
    deployment, a proxy's prefix) does not matter; sub-resources such as `/responses/{id}` and
    `/responses/input_tokens` are something else.
    """
    if method.upper() != "POST":
        return None
    path = path.rstrip("/")
    if path.endswith("/chat/completions"):
        return Dialect.CHAT
    if path.endswith("/responses"):
        return Dialect.RESPONSES
    if path.endswith("/completions"):
        return Dialect.COMPLETIONS
    return None
