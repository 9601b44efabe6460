"""Warnings: each given once across processes and restarts, delivered at least once, signed."""

import hashlib
import hmac
import http.server
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from fleet import until
from ledger_facts import NOON, make_call, make_settlement

from lastchunk.alerting import Alert, Watch, Watched, Webhook, webhook_of
from lastchunk.clock import SystemClock
from lastchunk.config import WarningRow
from lastchunk.errors import SettingsError
from lastchunk.ledger import Ledger
from lastchunk.ledger.notices import Claim, Notice, NoticeTable
from lastchunk.limits import Limit, Per, Unit
from lastchunk.telemetry.metrics import Metrics

SECRET = b"a-secret-of-the-operator"
CAP = Limit("search, a month", "team", Unit.MONEY, 1_000, Per.MONTH)
RATE = Limit("a minute", "team", Unit.TOKENS, 10, Per.MINUTE)
WATCHED = Watched(limits=(CAP, RATE), at_percent=(80, 95))


@dataclass
class Receiver:
    """An operator's server: answers with these statuses in turn, then with 200."""

    statuses: list[int] = field(default_factory=list)
    url: str = ""
    got: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    def alerts(self) -> list[dict[str, object]]:
        return [json.loads(body) for _, body in self.got]


@contextmanager
def receiving(*statuses: int) -> Iterator[Receiver]:
    receiver = Receiver(list(statuses))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(receiver.statuses.pop(0) if receiver.statuses else 200)
            self.send_header("location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        receiver.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def watching(url: str, receiver: Receiver | None, **given: object) -> Iterator[Watch]:
    clock = SystemClock()
    webhook = None
    if receiver is not None:
        webhook = Webhook(f"{receiver.url}/hook?team=ops", SECRET, clock, first_pause=0.01)
    watch = Watch(url, clock, WATCHED, webhook=webhook, look_seconds=0.01, **given)  # type: ignore[arg-type]
    try:
        yield watch
    finally:
        watch.close()


def spend(ledger: Ledger, watches: list[Watch], nano: int) -> None:
    """One settled call, of which every process hears."""
    call = make_call()
    settlement = make_settlement(call, nano)
    ledger.reserve(call).result()
    ledger.settle(call, settlement, NOON).result()
    for watch in watches:
        watch.settled(call, settlement)


def test_each_level_is_told_once_by_all_processes_and_by_none_again_after_a_restart(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    metrics = Metrics()
    with Ledger.open(url, clock=SystemClock()) as ledger, receiving() as receiver:
        with watching(url, receiver, told=metrics) as one, watching(url, receiver) as two:
            spend(ledger, [one, two], 799)
            until(lambda: b"} 0.799" in metrics.text(), "a look")
            assert receiver.got == []
            spend(ledger, [one, two], 1)
            until(lambda: len(receiver.got) == 1, "80 %")
            spend(ledger, [one, two], 400)
            until(lambda: len(receiver.got) == 2, "95 %")
            for _ in range(5):
                spend(ledger, [one, two], 1)
        with watching(url, receiver) as again:
            spend(ledger, [again], 1)
    told = receiver.alerts()
    assert [one["level_percent"] for one in told] == [80, 95]
    assert told[0]["account"] == "team"
    assert told[0]["used_nano_usd"] == 800
    assert told[0]["starts"] == "2026-05-01T00:00:00+00:00"
    assert len({one["id"] for one in told}) == 2
    messages = [record.getMessage() for record in caplog.records]
    assert sum("80 % reached" in message for message in messages) == 1


def test_a_delivery_is_signed_and_tried_again_with_the_same_id(url: str) -> None:
    with Ledger.open(url, clock=SystemClock()) as ledger, receiving(500, 503, 307) as receiver:
        with watching(url, receiver) as watch:
            spend(ledger, [watch], 900)
            until(lambda: len(receiver.got) == 4, "the fourth attempt")
    assert len({headers["x-lastchunk-id"] for headers, _ in receiver.got}) == 1
    for headers, body in receiver.got:
        told = headers["x-lastchunk-timestamp"].encode() + b"." + body
        expected = hmac.new(SECRET, told, hashlib.sha256).hexdigest()
        assert headers["x-lastchunk-signature"] == f"sha256={expected}"
        assert json.loads(body)["id"] == headers["x-lastchunk-id"]


def test_what_was_not_delivered_is_delivered_by_another_later(url: str) -> None:
    notice = Notice("budget:x", "team", NOON, 80)
    with Ledger.open(url, clock=SystemClock()):
        one, two = NoticeTable(url), NoticeTable(url)
        assert one.claim(notice, NOON, 1_000) is Claim.FIRST
        assert two.claim(notice, NOON + 999, 1_000) is Claim.TAKEN
        assert two.claim(notice, NOON + 1_000, 1_000) is Claim.AGAIN
        assert one.claim(notice, NOON + 1_001, 1_000) is Claim.TAKEN
        two.told(notice, NOON + 1_002)
        assert one.claim(notice, NOON + 99_999, 1_000) is Claim.TOLD
        assert one.claim(Notice("budget:x", "team", NOON, 95), NOON, 1_000) is Claim.FIRST
        one.close()
        two.close()


def test_of_many_who_claim_at_once_one_is_the_first(url: str) -> None:
    notice = Notice("budget:x", "team", NOON, 80)
    claims: list[Claim] = []
    with Ledger.open(url, clock=SystemClock()):
        tables = [NoticeTable(url) for _ in range(8)]
        start = threading.Barrier(len(tables))

        def claim(table: NoticeTable) -> None:
            start.wait()
            claims.append(table.claim(notice, NOON, 1_000))
            table.close()

        threads = [threading.Thread(target=claim, args=(table,)) for table in tables]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(claims, key=lambda one: one.value) == [Claim.FIRST] + [Claim.TAKEN] * 7


def test_alerts_of_other_sources_are_told_once_too(tmp_path: object) -> None:
    alert = Alert("cancel_ratio", "an hour", "acme", NOON, 50, "acme cancels half", (("calls", 9),))
    url = f"{tmp_path}/l.db"
    with Ledger.open(url, clock=SystemClock()) as ledger, receiving() as receiver:
        with watching(url, receiver, alerts=lambda *_: [alert]) as watch:
            spend(ledger, [watch], 1)
            until(lambda: receiver.got, "the alert")
            spend(ledger, [watch], 1)
    (told,) = receiver.alerts()
    assert (told["kind"], told["calls"]) == ("cancel_ratio", 9)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"webhook_url": "file:///etc/passwd"}, "https://host"),
        ({"webhook_url": "https://me:pw@host/"}, "without credentials"),
        ({"webhook_secret_env": None}, "webhook_secret_env is missing"),
        ({"webhook_secret_env": "NOT_SET_ANYWHERE"}, "NOT_SET_ANYWHERE is empty"),
        ({"webhook_secret_env": "SHORT"}, "SHORT is empty or short"),
    ],
)
def test_a_webhook_that_cannot_be_used_is_refused_at_the_start(
    changes: dict[str, str | None], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHORT", "short")
    row = {"webhook_url": "https://ops.test/", "webhook_secret_env": "SHORT"} | changes
    with pytest.raises(SettingsError, match=said):
        webhook_of(WarningRow.model_validate(row), SystemClock())
