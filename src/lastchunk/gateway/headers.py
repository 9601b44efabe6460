"""Which headers go through the gateway, which stay, and which it reads itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multidict import CIMultiDict, CIMultiDictProxy

CALL_ID = "x-lastchunk-call-id"
ACCOUNT = "x-lastchunk-account"
TAGS = "x-lastchunk-tags"
USAGE = "x-lastchunk-usage"
EXACT = "exact"
"""`x-lastchunk-usage: exact` asks for exact mode; on an answer it says that it was used."""
UNMETERED = "x-lastchunk-unmetered"
"""On an answer: why the request was passed on without an account."""

_OWN_PREFIX = "x-lastchunk-"

_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
}
"""RFC 9110, 7.6.1: of one connection only."""

MAX_TAGS = 16
MAX_LABEL_CHARS = 200
"""Labels come from clients and go into the ledger: both bounds keep a row small."""


def to_upstream(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """A request's headers as the upstream gets them: all but the connection's and our own.

    `Expect: 100-continue` is answered here, where the body is read.
    """
    dropped = _dropped(headers) | {"host", "content-length", "expect"}
    return _without(headers.items(), dropped)


def to_caller(headers: CIMultiDictProxy[str], *, changed: bool) -> CIMultiDict[str]:
    """An answer's headers as the caller gets them; of a changed body no length is known."""
    dropped = _dropped(headers) | ({"content-length"} if changed else set())
    return _without(headers.items(), dropped)


def labels(
    headers: Mapping[str, str], default_account: str
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """Who spends, as `x-lastchunk-account: web` and `x-lastchunk-tags: team=a,env=b` say."""
    account = _label(headers.get(ACCOUNT, "")) or default_account
    tags: dict[str, str] = {}
    for pair in headers.get(TAGS, "").split(",")[:MAX_TAGS]:
        name, separator, value = pair.partition("=")
        if separator and _label(name):
            tags[_label(name)] = _label(value)
    return account, tuple(sorted(tags.items()))


def _label(text: str) -> str:
    """Without control characters, which a terminal that shows it would obey."""
    text = text.strip()[:MAX_LABEL_CHARS]
    if not text.isprintable():
        text = "".join(char for char in text if char.isprintable()).strip()
    return text


def _dropped(headers: CIMultiDictProxy[str]) -> set[str]:
    named = {
        name.strip().lower()
        for value in headers.getall("connection", [])
        for name in value.split(",")
    }
    return _HOP_BY_HOP | named


def _without(items: Iterable[tuple[str, str]], dropped: set[str]) -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict()
    for name, value in items:
        lower = name.lower()
        if lower not in dropped and not lower.startswith(_OWN_PREFIX):
            kept.add(name, value)
    return kept
