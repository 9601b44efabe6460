"""Waiting for a reservation, and refusing a call that has none where that is what was set."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import SpoolOptions
from lastchunk.metered_call import MeteredCall

log = logging.getLogger("lastchunk")


def reserved(call: MeteredCall, spool: SpoolOptions) -> LedgerUnavailable | None:
    """Waits until the reservation is durable. An error: the call must not be sent."""
    try:
        call.reserved.result(spool.most_seconds)
    except Exception as error:  # the ledger's failure is not the caller's, unless so set
        return _failed(call, error, spool)
    return None


async def reserved_async(call: MeteredCall, spool: SpoolOptions) -> LedgerUnavailable | None:
    """As `reserved`, without blocking asyncio's event loop."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # another event loop than asyncio's: a commit takes a millisecond or so
        return reserved(call, spool)
    try:
        arrived = asyncio.shield(asyncio.wrap_future(call.reserved))
        await asyncio.wait_for(arrived, spool.most_seconds)
    except Exception as error:  # as above
        return _failed(call, error, spool)
    return None


def refuse(request: Any, error: LedgerUnavailable) -> Any:
    """Has the caller meet LedgerUnavailable, and once.

    openai's client takes what `send` raises for a broken connection and tries again. What checking
    the answer's status raises it lets through: it is given such an answer. Others get the error.
    """
    if "x-stainless-lang" not in request.headers:
        raise error
    module = sys.modules[type(request).__module__.partition(".")[0]]  # httpx or httpx2
    told = {"error": {"message": str(error), "type": "lastchunk", "code": "ledger_away"}}
    response = module.Response(
        503,
        headers={"content-type": "application/json", "x-should-retry": "false"},
        content=json.dumps(told).encode(),
        request=request,
    )

    def raise_for_status() -> None:
        raise error

    response.raise_for_status = raise_for_status
    return response


def _failed(call: MeteredCall, error: Exception, spool: SpoolOptions) -> LedgerUnavailable | None:
    told = str(error) or type(error).__name__
    log.error("%s could not be reserved: %s", call.call_id, told)
    if spool.passes:
        return None  # it goes on all the same; it will be settled if the ledger comes back
    if isinstance(error, LedgerUnavailable):
        return error
    return LedgerUnavailable(f"the call was refused, its reservation failed: {told}")
