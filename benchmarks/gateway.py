"""The gateway in a process of its own: `python -m benchmarks.gateway PORT FOLDER on|off`."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

import uvloop

from lastchunk.gateway import relay
from lastchunk.gateway.app import Gateway, GatewayOptions
from lastchunk.settings import load_settings
from lastchunk.startup import open_books


async def serve(upstream: str, folder: str, meter: str) -> None:
    if meter == "off":  # every request takes the way of those that are not metered
        relay.dialect_of = lambda method, path: None
    books = open_books(load_settings(ledger=str(Path(folder) / f"{meter}.db")))
    async with Gateway(GatewayOptions(upstream=upstream, port=0), books) as gateway:
        print(gateway.url.rpartition(":")[2], flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    uvloop.run(serve(f"http://127.0.0.1:{sys.argv[1]}", *sys.argv[2:4]))
