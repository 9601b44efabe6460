"""Metrics agree with the ledger to the token, whatever becomes of calls and of workers."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from fleet import Fleet, fleet, until
from gateway_stage import running
from scraped import is_settled, ledgers_sums, play, scrape, scraped_sums

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import Script, Simulator
from lastchunk.telemetry.metrics import MOST_VALUES, OTHER, Condition, Metrics


def test_sums_of_all_workers_are_the_ledgers_also_after_one_was_killed(
    sim: Simulator, url: str, tmp_path: Path
) -> None:
    with fleet(sim.url, url, tmp_path, workers=2) as gateways, ThreadPoolExecutor(12) as pool:
        teams = [f"acme/team-{n}" for n in range(4)]
        list(pool.map(lambda team: play(gateways.url, team, 18), teams))
        until(lambda: agrees(gateways.url, url), "the ledger and the metrics agree")
        # Streams are under way, and none ends at this moment: a worker dies, a sibling settles.
        slow = [(Script(output_tokens=80, pacing_s=0.05), None)]
        playing = [pool.submit(play, gateways.url, team, 1, slow) for team in teams * 3]
        until(lambda: scrape(gateways.url).total("lastchunk_open_calls") == 12, "open calls")
        os.kill(gateways.pids()[0], signal.SIGKILL)
        for one in playing:
            one.result()
        until(lambda: agrees(gateways.url, url), "they agree after a kill")
        expected = ledgers_sums(url)
        # A restart one by one loses no number either.
        before = gateways.pids()
        gateways.process.send_signal(signal.SIGHUP)
        until(lambda: not set(gateways.pids()) & set(before), "all workers are new")
        scraped = scrape(gateways.url)
        assert scraped_sums(scraped) == expected
        assert expected["output"] > 0
        assert expected["calls"] > 50
        assert scraped.total("lastchunk_open_calls") == 0
        endings = {found["ending"] for found, _ in scraped.samples["lastchunk_calls_total"]}
        assert {"completed", "caller_left", "upstream_cut", "refused", "lost"} <= endings
        folder = told_folder(gateways)
        assert folder.is_dir()
        assert gateways.end() == 0
        assert not folder.exists()


def test_a_kill_while_calls_are_settled_hides_no_more_of_them_than_were_just_ending(
    sim: Simulator, url: str, tmp_path: Path
) -> None:
    """What was committed and not counted yet is in the ledger alone: metrics are never ahead."""
    clients, kills, calls = 12, 3, 40
    endings = [(Script(output_tokens=4), None)]
    with fleet(sim.url, url, tmp_path, workers=2) as gateways, ThreadPoolExecutor(clients) as pool:
        teams = [f"acme/team-{n}" for n in range(clients)]
        playing = [pool.submit(play, gateways.url, team, calls, endings) for team in teams]
        for number in range(kills):
            wanted = (number + 1) * clients * calls // (kills + 1) // 2
            until(lambda: scrape(gateways.url).total("lastchunk_calls_total") > wanted, "calls")  # noqa: B023
            os.kill(gateways.pids()[0], signal.SIGKILL)
            until(lambda: len(gateways.pids()) == 2, "another takes its place")
        for one in playing:
            one.result()
        until(lambda: is_settled(url) and not open_calls(gateways.url), "all is settled and told")
        ledger, scraped = ledgers_sums(url), scraped_sums(scrape(gateways.url))
        assert gateways.end() == 0
    hidden = ledger["calls"] - scraped["calls"]
    print(f"{hidden} of {ledger['calls']} calls are not in the metrics after {kills} kills")
    assert 0 <= hidden <= kills * clients
    assert ledger["calls"] > clients * calls / 2
    if not hidden:
        assert scraped == ledger


def open_calls(gateway: str) -> float:
    return scrape(gateway).total("lastchunk_open_calls")


def test_refusals_are_told_by_the_limit_that_refused(sim: Simulator, tmp_path: Path) -> None:
    config = tmp_path / "lastchunk.toml"
    config.write_text(
        '[[limits]]\nname = "few calls"\naccount = "acme"\nrequests = 2\nper = "ever"\n'
        '[[limits]]\nname = "little money"\naccount = "poor"\nusd = "0.000001"\nper = "ever"\n'
    )
    ledger = str(tmp_path / "l.db")
    with fleet(sim.url, ledger, tmp_path, "--config", str(config), workers=2) as gateways:
        for _ in range(5):
            play(gateways.url, "acme", 1)
        for _ in range(4):
            play(gateways.url, "poor", 1)
        scraped = scrape(gateways.url)
        assert gateways.end() == 0
        assert len(gateways.rows()) == 2
    refusals = scraped.samples["lastchunk_limit_refusals_total"]
    assert {found["limit"]: value for found, value in refusals} == {
        "few calls": 3,
        "little money": 4,
    }


def agrees(gateway: str, ledger: str) -> bool:
    return is_settled(ledger) and scraped_sums(scrape(gateway)) == ledgers_sums(ledger)


def told_folder(gateways: Fleet) -> Path:
    environment = Path(f"/proc/{gateways.pids()[0]}/environ").read_bytes().split(b"\0")
    (found,) = (one for one in environment if one.startswith(b"PROMETHEUS_MULTIPROC_DIR="))
    return Path(found.partition(b"=")[2].decode())


def test_a_scrape_needs_the_token_where_there_is_one(sim: Simulator, tmp_path: Path) -> None:
    clock = SystemClock()
    metrics = Metrics()
    ledger = Ledger.open(str(tmp_path / "l.db"), clock=clock)
    books = Bookkeeper(ledger, PriceBook.load(None), clock, observers=[metrics])
    try:
        with running(sim.url, books, metrics=metrics, metrics_token="s3cret-token") as gateway:
            for wrong in (None, "s3cret-tokeN", ""):
                with pytest.raises(OSError, match="401"):
                    scrape(gateway.url, wrong)
            play(gateway.url, "acme", 1)
            until(lambda: scrape(gateway.url, "s3cret-token").total("lastchunk_calls_total"), "1")
    finally:
        books.close()


def test_callers_cannot_make_series_without_bound(sim: Simulator, tmp_path: Path) -> None:
    clock = SystemClock()
    metrics = Metrics()
    ledger = Ledger.open(str(tmp_path / "l.db"), clock=clock)
    books = Bookkeeper(ledger, PriceBook.load(None), clock, observers=[metrics])
    try:
        with running(sim.url, books, metrics=metrics) as gateway:
            for number in range(MOST_VALUES + 5):
                play(gateway.url, f"account-{number}/x", 1)
            until(lambda: is_settled(str(tmp_path / "l.db")), "settled")
            until(lambda: books.open_calls() == 0, "told")
            scraped = scrape(gateway.url)
        accounts = {found["account"] for found, _ in scraped.samples["lastchunk_calls_total"]}
        assert len(accounts) == MOST_VALUES + 1
        assert scraped.total("lastchunk_calls_total", account=OTHER) == 5
        assert scraped_sums(scraped) == ledgers_sums(str(tmp_path / "l.db"))
    finally:
        books.close()


def test_an_observer_that_fails_costs_no_settlement(sim: Simulator, tmp_path: Path) -> None:
    class Failing(Metrics):
        def settled(self, *_: object) -> None:
            raise RuntimeError("broken")

    clock = SystemClock()
    after = Metrics()
    ledger = Ledger.open(str(tmp_path / "l.db"), clock=clock)
    books = Bookkeeper(ledger, PriceBook.load(None), clock, observers=[Failing(), after])
    try:
        with running(sim.url, books) as gateway:
            play(gateway.url, "acme", 3)
            until(lambda: is_settled(str(tmp_path / "l.db")), "settled")
    finally:
        with suppress(OSError):
            books.close()
    assert b"lastchunk_calls_total{" in after.text()


def test_the_file_of_a_worker_that_just_starts_spoils_no_scrape(
    sim: Simulator, tmp_path: Path
) -> None:
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, workers=2) as gateways:
        play(gateways.url, "acme", 1)
        until(lambda: scrape(gateways.url).total("lastchunk_calls_total") == 1, "a call")
        (told_folder(gateways) / "counter_1.db").touch()  # as prometheus_client makes it
        assert scrape(gateways.url).total("lastchunk_calls_total") == 1
        assert gateways.end() == 0


NOON = 1_790_000_000_000


def test_what_others_tell_is_shown() -> None:
    metrics = Metrics()
    metrics.refused("search, a month")
    metrics.warned("budget", "search, a month", 80)
    metrics.used("search, a month", "acme/search", 0.81, NOON + 1)
    text = metrics.text().decode()
    assert 'lastchunk_limit_refusals_total{limit="search, a month"} 1.0' in text
    assert 'lastchunk_warnings_total{kind="budget",level="80",name="search, a month"} 1.0' in text
    assert 'lastchunk_limit_used_ratio{account="acme",limit="search, a month"} 0.81' in text


def test_of_the_accounts_under_a_limit_the_fullest_is_shown_until_its_window_ends() -> None:
    metrics = Metrics()

    def shown() -> str:
        lines = metrics.text().decode().splitlines()
        return next(line for line in lines if line.startswith("lastchunk_limit_used_ratio{"))

    metrics.used("each user", "acme/a/u1", 0.99, NOON + 1)
    metrics.used("each user", "acme/a/u2", 0.01, NOON + 1)
    assert shown().endswith(" 0.99")
    metrics.used("each user", "acme/a/u1", 0.5, NOON + 1)  # a refund
    assert shown().endswith(" 0.5")
    metrics.show(Condition(), NOON)
    assert shown().endswith(" 0.5")
    metrics.used("each user", "acme/a/u1", 0.9, NOON - 1)
    assert shown().endswith(" 0.5")
    metrics.show(Condition(), NOON + 1)
    assert shown().endswith(" 0.0")
    metrics.used("each user", "acme/a/u2", 0.02, NOON + 9)
    assert shown().endswith(" 0.02")
