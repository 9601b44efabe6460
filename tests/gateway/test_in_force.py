"""What a reload puts in force besides the rules, and what it says of the rest."""

import logging
from functools import partial
from pathlib import Path

import pytest

from lastchunk.alerting import Watch
from lastchunk.bookkeeper import Bookkeeper
from lastchunk.cli.in_force import InForce, read_rules, watched
from lastchunk.clock import SystemClock
from lastchunk.errors import SettingsError
from lastchunk.ledger import Ledger
from lastchunk.meter.departure import LeavePolicy
from lastchunk.pricing.book import PriceBook
from lastchunk.settings import load_settings
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import read_request

ASKED = read_request(
    Dialect.CHAT, {"model": "gpt-4o", "stream": True}, upstream="h", body_bytes=2, path="/v1"
)


def test_leaving_and_exact_accounts_follow_the_file_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock, file, url = SystemClock(), tmp_path / "lastchunk.toml", str(tmp_path / "l.db")
    file.write_text('exact_accounts = ["audit"]\n')
    config, _ = read_rules(file)
    books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
    watch = Watch(url, clock, watched(config))
    read = partial(load_settings, file)
    in_force = InForce(read, read(), config, file, None, books, watch, None)

    def policy() -> LeavePolicy:
        return books.leaving.departing(ASKED, "acme").rule.policy

    assert policy() is LeavePolicy.CANCEL
    file.write_text(
        'grace_seconds = 3\nexact_accounts = ["billing"]\n[[when_client_leaves]]\ndo = "drain"\n'
    )
    with caplog.at_level(logging.WARNING):
        rules, _ = read_rules(file)
        in_force.reloading.check(rules)
        in_force.reloading.reloaded(rules)
    assert policy() is LeavePolicy.DRAIN
    assert in_force.exact_accounts == ["billing"]
    assert "in force after a restart only: grace_seconds" in caplog.text
    file.write_text('[[when_client_leaves]]\ndo = "canzel"\n')
    with pytest.raises(SettingsError, match="canzel"):
        in_force.reloading.check(config)
    watch.close()
    books.close()


def test_a_pattern_that_could_fit_nobody_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "lastchunk.toml"
    for pattern in ("acme*", "acme//x", ""):
        file.write_text(f'exact_accounts = ["{pattern}"]\n')
        with pytest.raises(SettingsError, match="is no account path"):
            load_settings(file)
