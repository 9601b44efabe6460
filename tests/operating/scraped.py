"""Calls of many endings through a gateway, and what a scrape says of them."""

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from lastchunk.ledger import Reader
from lastchunk.simulator import Fault, Script, write_script

PROMPT = "the-prompt-word zanzibar"
KEY = "sk-callers-own-key-0123456789"

Sums = dict[tuple[str, ...], float]


@dataclass
class Scrape:
    """One scrape's samples by name and labels."""

    text: str
    samples: dict[str, list[tuple[dict[str, str], float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for family in text_string_to_metric_families(self.text):
            for sample in family.samples:
                found = self.samples.setdefault(sample.name, [])
                found.append((dict(sample.labels), sample.value))

    def total(self, name: str, **labels: str) -> float:
        return sum(
            value for found, value in self.samples.get(name, []) if labels.items() <= found.items()
        )


def scrape(gateway: str, token: str | None = None) -> Scrape:
    request = urllib.request.Request(f"{gateway}/metrics")
    if token is not None:
        request.add_header("authorization", f"Bearer {token}")
    for again in (True, False):
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return Scrape(answer.read().decode())
        except ConnectionResetError:  # it waited for a worker that crashed twice within seconds
            if not again:
                raise
    raise AssertionError("unreachable")


ENDINGS: list[tuple[Script, int | None]] = [
    (Script(output_tokens=12), None),
    (Script(output_tokens=20, pacing_s=0.01), 4),
    (Script(output_tokens=9, fault=Fault("rst", "tokens:3")), None),
    (Script(fault=Fault("http_429")), None),
    (Script(reasoning_tokens=7, reported_cached=1), None),
    (Script(fault=Fault("http_500")), None),
    (Script(fault=Fault("rst_before_headers")), None),
    (Script(fault=Fault("error_event", "first_chunk")), None),
    (Script(fault=Fault("garbage")), None),
]
"""Scripts, and after how many chunks the caller leaves."""


def play(
    gateway: str,
    account: str,
    calls: int,
    endings: list[tuple[Script, int | None]] = ENDINGS,
) -> None:
    """So many calls, of every ending in turn."""
    body = {
        "model": "gpt-4o-mini",
        "stream": True,
        "messages": [{"role": "user", "content": PROMPT}],
    }
    with httpx2.Client(timeout=20) as client:
        for number in range(calls):
            script, leaves_after = endings[number % len(endings)]
            headers = {
                "x-sim": write_script(script),
                "x-lastchunk-account": account,
                "authorization": f"Bearer {KEY}",
            }
            url = f"{gateway}/v1/chat/completions"
            with contextlib.suppress(httpx2.HTTPError):
                with client.stream("POST", url, json=body, headers=headers) as answer:
                    for seen, _ in enumerate(answer.iter_lines()):
                        if seen == leaves_after:
                            break


def is_settled(ledger: str) -> bool:
    with Reader.open(ledger) as reader:
        rows = reader.spend()
    return bool(rows) and rows[0].open_calls == 0


def ledgers_sums(url: str) -> dict[str, int]:
    """The ledger's own sums, in whole tokens and nano-dollars."""
    with Reader.open(url) as reader:
        (row,) = reader.spend()
    assert row.open_calls == 0
    return {
        "calls": row.calls,
        "input": row.input.best,
        "input_cached": row.cached.best,
        "output": row.output.best,
        "output_reasoning": row.reasoning.best,
        "cost": row.cost.best,
        "cost_low": row.cost.low,
        "cost_high": row.cost.high,
        "charge": row.charge,
    }


def scraped_sums(scraped: Scrape) -> dict[str, int]:
    """The same, as the metrics and what was corrected add up."""

    def both(name: str, **labels: str) -> float:
        plain = scraped.total(f"lastchunk_{name}_total", **labels)
        return plain + scraped.total(f"lastchunk_corrected_{name}", **labels)

    def nano(name: str) -> int:
        return round(Decimal(both(f"{name}_usd")).scaleb(9))

    kinds = ("input", "input_cached", "output", "output_reasoning")
    return {
        "calls": int(scraped.total("lastchunk_calls_total")),
        **{kind: int(both("tokens", kind=kind)) for kind in kinds},
        **{name: nano(name) for name in ("cost", "cost_low", "cost_high", "charge")},
    }


def told(url: str) -> tuple[int, dict[str, object]]:
    """A page's status and JSON."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def lines(text: str) -> Iterator[dict[str, object]]:
    """JSON log lines."""
    for line in text.splitlines():
        yield json.loads(line)
