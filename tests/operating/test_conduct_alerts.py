"""Accounts whose callers leave too much, or that pay too little: told of by the running gateway."""

from pathlib import Path

import pytest
from fleet import fleet, until
from ledger_facts import NOON, Stopwatch, make_call, make_settlement
from scraped import play, scrape
from test_alerting import receiving

from lastchunk.alerting import Alert, ConductLook, Watched
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger, Reader
from lastchunk.limits import NO_THRESHOLDS, Thresholds
from lastchunk.meter.ending import Ending
from lastchunk.settlement.facts import Charge
from lastchunk.simulator import Script, Simulator

HOUR_MS = 3_600_000
WATCHED = Watched(thresholds=Thresholds(cancel_ratio=0.5, unbilled_share=0.2))
LEFT = [(Script(output_tokens=200, pacing_s=0.05), 4)]
WHOLE = [(Script(output_tokens=3), None)]


def test_the_operators_file_has_a_running_gateway_tell_of_them(
    sim: Simulator, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "sixteen-letters-or-more")
    config = tmp_path / "lastchunk.toml"
    with receiving() as receiver:
        config.write_text(
            '[[charges]]\naccount = "acme"\nendings = ["caller_left"]\ncharge = "nothing"\n'
            f'[warnings]\nwebhook_url = "{receiver.url}"\nwebhook_secret_env = "HOOK_SECRET"\n'
            "cancel_ratio = 0.5\nunbilled_share = 0.2\n"
        )
        with fleet(sim.url, url, tmp_path, "--config", str(config), workers=2) as gateways:
            play(gateways.url, "acme", 21, LEFT)
            play(gateways.url, "tidy", 21, WHOLE)
            until(lambda: len(receiver.got) == 2, "both alerts")
            told = {str(alert["kind"]): alert for alert in receiver.alerts()}
            scraped = scrape(gateways.url)
            assert gateways.end() == 0
            assert "the callers of acme left 100% of 2" in gateways.said()
        assert len(receiver.got) == 2, "both workers look, one tells, once"
    assert told.keys() == {"cancel_ratio", "unbilled_share"}
    assert {alert["account"] for alert in told.values()} == {"acme"}
    assert told["cancel_ratio"]["level_percent"] == 50
    assert told["cancel_ratio"]["cancelled_calls"] == told["cancel_ratio"]["calls"]
    assert told["unbilled_share"]["unbilled_nano_usd"] == told["unbilled_share"]["cost_nano_usd"]
    for kind in told:
        assert (
            scraped.total(
                "lastchunk_warnings_total", kind=kind, level=str(told[kind]["level_percent"])
            )
            == 1
        )


def play_hour(ledger: Ledger, at_ms: int, calls: int, **changes: object) -> None:
    for _ in range(calls):
        call = make_call(opened_ms=at_ms)
        settlement = make_settlement(call, 500, **changes)
        ledger.reserve(call).result()
        ledger.settle(call, settlement, at_ms).result()


def test_an_hour_is_looked_at_once_more_after_its_end_and_is_an_alert_of_its_own(
    tmp_path: Path,
) -> None:
    url, clock = str(tmp_path / "l.db"), Stopwatch()
    look = ConductLook(clock)

    def told() -> list[Alert]:
        clock.now += 10_000
        return look(reader, WATCHED) or []

    with Ledger.open(url, clock=SystemClock()) as ledger, Reader.open(url) as reader:
        play_hour(ledger, NOON, 19, ending=Ending.CALLER_LEFT)
        assert told() == [], "too few calls say nothing"
        play_hour(ledger, NOON, 1, ending=Ending.CALLER_LEFT)
        clock.now = NOON + HOUR_MS
        (late,) = told()
        assert (late.kind, late.start_ms) == ("cancel_ratio", NOON)
        assert told() == [], "and no longer after that"
        play_hour(ledger, NOON + HOUR_MS, 20, charge=Charge(0, "nothing"))
        (other,) = told()
        assert (other.kind, other.start_ms) == ("unbilled_share", NOON + HOUR_MS)
        assert other.alert_id != late.alert_id


def test_it_looks_no_more_often_than_it_should_and_not_at_all_without_a_threshold(
    tmp_path: Path,
) -> None:
    url, clock = str(tmp_path / "l.db"), Stopwatch()
    look = ConductLook(clock)
    with Ledger.open(url, clock=SystemClock()) as ledger, Reader.open(url) as reader:
        play_hour(ledger, NOON, 20, ending=Ending.CALLER_LEFT)
        assert look(reader, Watched(thresholds=NO_THRESHOLDS)) == []
        assert len(look(reader, WATCHED)) == 1
        clock.now += 1_000
        assert look(reader, WATCHED) is None
        clock.now += 10_000
        assert len(look(reader, WATCHED)) == 1
