"""`instrument`: meters a client in place.

The hook is the HTTP client's `send`: the one public place that sees a request before it leaves,
an error before any answer, and the answer before its body is read; that runs once for each of the
SDK's own retries; and that leaves proxies, mounts, event hooks and transports as they are.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from lastchunk.errors import NotInstrumentable
from lastchunk.instrument.attempt import Metering
from lastchunk.instrument.sending import metered_async_send, metered_send
from lastchunk.settings import load_settings
from lastchunk.settlement.facts import Settlement

C = TypeVar("C")

_MARK = "_lastchunk_metering"

log = logging.getLogger("lastchunk")


def instrument(
    client: C,
    *,
    ledger: str | None = None,
    account: str | None = None,
    on_settled: Callable[[Settlement], None] | None = None,
) -> C:
    """Meter every call of this client from now on; gives back the same client.

    `client`: an `openai.OpenAI`, `AsyncOpenAI` or one of the Azure clients; the `openai` module
    itself, for its default client; or an `httpx`/`httpx2` client that is given to one of them.
    Copies made by `with_options` share the HTTP client and are metered too. Metered are POSTs to
    `…/chat/completions`, `…/responses` and `…/completions`, streamed or not; all else passes.

    `ledger`: a path or database URL, else `LASTCHUNK_LEDGER`, else `lastchunk.db` in the working
    directory. `account`: who spends where no `label` says. `on_settled` is called with each
    settlement once it is written down, on a thread of its own.

    Doing it twice changes nothing. Raises LedgerUnavailable if the ledger cannot be opened,
    NotInstrumentable for an object that is none of the above.
    """
    http = _http_client(client)
    if _MARK in vars(http):
        return client
    metering = Metering(load_settings(ledger=ledger, account=account), on_settled)
    metering.bookkeeper()
    wrap = metered_async_send if hasattr(http, "aclose") else metered_send
    before = vars(http).get("send")  # another tool's, perhaps
    http.send = wrap(http.send, metering)
    setattr(http, _MARK, (http.send, before))
    return client


def uninstrument(client: C) -> C:
    """Meter this client no longer; streams that are open stay metered to their end."""
    http = _http_client(client)
    if _MARK not in vars(http):
        return client
    ours, before = getattr(http, _MARK)
    if http.send is not ours:
        raise NotInstrumentable(
            f"another tool has replaced {type(http).__name__}.send after lastchunk did: undo that"
            " first"
        )
    delattr(http, _MARK)
    if before is None:
        del http.send
    else:
        http.send = before
    return client


def _http_client(client: Any) -> Any:
    """The HTTP client inside, by its shape: classes differ between versions and packages."""
    if inspect.ismodule(client) and hasattr(client, "_load_client"):
        client = client._load_client()
    for candidate in (client, getattr(client, "_client", None)):
        if all(hasattr(candidate, name) for name in ("send", "build_request", "event_hooks")):
            return candidate
    raise NotInstrumentable(
        f"{type(client).__name__} is no client that lastchunk knows: give it an openai client, "
        "or the httpx or httpx2 client inside yours"
    )
