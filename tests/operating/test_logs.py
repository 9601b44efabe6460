"""Log lines: one a settled call, in JSON or text, and never a prompt, an output or a key."""

import logging
import signal
from pathlib import Path

import pytest
from fleet import fleet, until
from ledger_facts import make_call, make_settlement
from scraped import ENDINGS, KEY, PROMPT, is_settled, ledgers_sums, lines, play

from lastchunk.simulator import Simulator, words
from lastchunk.telemetry.lines import CallLines, JsonLines, TextLines

CALLS = len(ENDINGS)


@pytest.mark.parametrize("form", ["json", "text"])
def test_each_call_has_its_line_and_nothing_of_what_was_said(
    sim: Simulator, tmp_path: Path, form: str
) -> None:
    ledger = str(tmp_path / "ledger.db")
    with fleet(sim.url, ledger, tmp_path, "--log-format", form, workers=2) as gateways:
        play(gateways.url, "acme/search", CALLS)
        until(lambda: is_settled(ledger), "all is settled")
        gateways.process.send_signal(signal.SIGHUP)
        until(lambda: "starting the workers again" in gateways.said(), "the supervisor's line")
        assert gateways.end() == 0
        said = gateways.said()
    sums = ledgers_sums(ledger)
    for secret in (KEY, "zanzibar", PROMPT, "authorization", "Bearer"):
        assert secret not in said
    if form == "text":
        assert said.count("event=settled") == sums["calls"]
        assert "ending=caller_left" in said
        return
    assert words_in(said) == []
    told = [line for line in lines(said) if line.get("event") == "settled"]
    assert len(told) == sums["calls"]
    assert (
        sum(int(str(line["output_tokens"])) for line in told if "output_tokens" in line)
        == (sums["output"])
    )
    assert {"completed", "caller_left", "upstream_cut", "refused"} <= {
        str(line["ending"]) for line in told
    }
    assert {line["worker"] for line in told} <= {1, 2}
    completed = next(line for line in told if line["ending"] == "completed")
    assert completed["output_basis"] == "reported"
    assert completed["account"] == "acme/search"
    assert float(str(completed["seconds"])) >= float(str(completed["first_token_seconds"]))


def words_in(said: str) -> list[str]:
    """Words of the simulator's texts, which are made of a fixed list, in any value of any line."""
    lists = (value for value in vars(words).values() if isinstance(value, tuple | list))
    known = {word.strip() for one in lists for word in one if isinstance(word, str)}
    telling = {word for word in known if len(word) > 6}
    assert len(telling) > 10
    values = [str(value) for line in lines(said) for value in line.values()]
    return [word for word in telling if any(word in value for value in values)]


def record(form: logging.Formatter, error: Exception | None = None) -> str:
    info = None if error is None else (type(error), error, None)
    made = logging.LogRecord("x", logging.ERROR, "f", 1, "it broke", (), info)
    return form.format(made)


@pytest.mark.parametrize("form", [JsonLines(1), TextLines(1)], ids=["json", "text"])
def test_an_exceptions_message_is_not_logged(form: logging.Formatter) -> None:
    said = record(form, ValueError("the user's words"))
    assert "words" not in said
    assert "ValueError" in said


def test_a_label_cannot_begin_a_line_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    call = make_call(account="x\n2026 ERROR forged", model='a" b=c')
    CallLines().settled(call, make_settlement(call))
    (message,) = [one.getMessage() for one in caplog.records]
    assert "\n" not in message
    assert r'model="a\" b=c"' in message
    assert "\n" not in JsonLines().format(caplog.records[0])
