"""Logs of a server: as text or as JSON, with one line a settled call. No content, no keys."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

from lastchunk.money import usd
from lastchunk.settlement.facts import OpenCall, Settlement
from lastchunk.telemetry.observer import Difference
from lastchunk.telemetry.told import duration_seconds, first_token_seconds
from lastchunk.usage import Quantity

Format = Literal["text", "json"]

log = logging.getLogger("lastchunk.calls")


class CallLines:
    """An observer that writes a line a call to the logger `lastchunk.calls`."""

    def opened(self, call: OpenCall) -> None:
        """Nothing: a call is told when it is settled."""

    def settled(self, call: OpenCall, settlement: Settlement) -> None:
        if log.isEnabledFor(logging.INFO):
            facts = facts_of(call, settlement)
            log.info("%s", _Words(facts), extra={"facts": facts})

    def corrected(self, call: OpenCall, difference: Difference) -> None:
        facts: dict[str, Any] = {"event": "corrected", "call_id": call.call_id}
        facts |= {f"{kind}_tokens": tokens for kind, tokens in difference.tokens}
        if difference.cost is not None:
            facts["cost_usd"] = _dollars(difference.cost.best)
        log.info("%s", _Words(facts), extra={"facts": facts})


def facts_of(call: OpenCall, settlement: Settlement) -> dict[str, Any]:
    """What is told of a settled call. Money in USD as decimal text, times in seconds."""
    seen, usage, cost = settlement.observation, settlement.usage, settlement.cost
    told: dict[str, Any] = {
        "event": "settled",
        "call_id": call.call_id,
        "attempt_of": call.attempt_of,
        "account": call.account,
        "model": call.request.model,
        "upstream": call.request.upstream,
        "ending": settlement.ending.value,
        "status": seen.status,
        **_tokens("input", usage.input_tokens),
        **_tokens("output", usage.output_tokens),
        "cost_usd": None if cost is None else _dollars(cost.best),
        "cost_low_usd": None if cost is None else _dollars(cost.low),
        "cost_high_usd": None if cost is None else _dollars(cost.high),
        "charge_usd": _dollars(settlement.charge.amount),
        "seconds": duration_seconds(call, settlement),
        "first_token_seconds": first_token_seconds(call, settlement),
        "faults": ",".join(seen.faults) or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _tokens(kind: str, quantity: Quantity | None) -> dict[str, Any]:
    if quantity is None:
        return {}
    told: dict[str, Any] = {f"{kind}_tokens": quantity.best}
    if quantity.low != quantity.high:
        told |= {f"{kind}_tokens_low": quantity.low, f"{kind}_tokens_high": quantity.high}
    return told | {f"{kind}_basis": quantity.basis.name.lower()}


def _dollars(nano: int | None) -> str | None:
    return None if nano is None else f"{usd(nano):f}"


class _Words:
    """Facts as `name=value`, made only where a text line is written."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def __str__(self) -> str:
        return " ".join(f"{name}={_word(value)}" for name, value in self._facts.items())


def _word(value: object) -> str:
    """One word, quoted where it would not stay one: no caller's label begins a line of its own."""
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and not set(text) & set(' "=\\') and text
    return text if is_plain else json.dumps(text)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, then a call's facts or the message."""

    def __init__(self, worker: int | None = None) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        told: dict[str, Any] = {"time": at, "level": record.levelname, "logger": record.name}
        if self._worker is not None:
            told["worker"] = self._worker
        facts = getattr(record, "facts", None)
        told |= facts if isinstance(facts, dict) else {"message": record.getMessage()}
        if record.exc_info and record.exc_info[0] is not None:
            told["error"] = record.exc_info[0].__name__  # its message may quote content
        return json.dumps(told)


class TextLines(logging.Formatter):
    """A line for people. Of an exception its type alone: its message may quote content."""

    def __init__(self, worker: int | None = None) -> None:
        name = "%(name)s" if worker is None else f"worker {worker} %(name)s"
        super().__init__(f"%(asctime)s %(levelname)s {name}: %(message)s")

    def formatException(self, ei: Any) -> str:
        return f"({ei[0].__name__})" if ei and ei[0] else ""


def set_up_logging(form: Format, worker: int | None = None) -> None:
    """The root logger of a server's process, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(worker) if form == "json" else TextLines(worker))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for noisy in ("alembic", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
