"""The operator's file: what is wrong is named with its line, before anything starts."""

from pathlib import Path
from typing import get_args

import pytest

from lastchunk.config import NO_RULES, EndingName, load_config, read_config
from lastchunk.errors import SettingsError
from lastchunk.meter.ending import Ending

GOOD = """\
ledger = "books.db"
timezone = "Europe/Berlin"

[upstreams.openai]
url = "https://api.openai.com"
models = ["gpt-*", "o*"]
api_key_env = "OPENAI_API_KEY"

[upstreams.local]
url = "http://127.0.0.1:8000/v1"

[[limits]]
name = "search, a month"
account = "acme/search"
usd = "250.50"
per = "month"

[[limits]]
name = "streams"
account = "*"
streams = 20

[[charges]]
endings = ["upstream_cut"]
charge = "nothing"
"""


def test_a_good_file_is_read_whole() -> None:
    config = read_config(GOOD, "lastchunk.toml")
    assert config.zone.key == "Europe/Berlin"
    assert [row.name for row in config.limits] == ["search, a month", "streams"]
    assert config.upstreams["openai"].serves("gpt-5")
    assert not config.upstreams["openai"].serves("claude")
    assert config.upstreams["local"].serves("claude")
    assert config.charges[0].endings == ("upstream_cut",)


def test_no_file_is_no_rules(tmp_path: Path) -> None:
    assert load_config(tmp_path / "lastchunk.toml") == NO_RULES


WRONG = [
    ('api_key_env = "OPENAI_API_KEY"', 'api_key = "sk-1"', 7, "unknown; known are api_key_env"),
    ('url = "https://api.openai.com"', 'url = "api.openai.com"', 5, "write a base URL"),
    ('url = "https://api.openai.com"', 'url = "https://me:pw@api.openai.com"', 5, "credentials"),
    ('url = "http://127.0.0.1:8000/v1"', 'url = "http://169.254.169.254/x"', 10, "metadata"),
    ('usd = "250.50"', 'usd = "-1"', 15, "greater than or equal to 0"),
    ('usd = "250.50"', 'usd = "1"\ntokens = 5', 12, "exactly one of"),
    ('per = "month"', 'per = "year"', 16, "'minute', 'hour'"),
    ('per = "month"', "", 12, "how often"),
    ("streams = 20", 'streams = 20\nper = "day"', 18, "leave out per"),
    ('name = "streams"', 'name = "search, a month"', 12, "two limits are called"),
    ('account = "*"', 'account = "/acme"', 20, "pattern"),
    ('endings = ["upstream_cut"]', 'endings = ["cut"]', 24, "'completed', 'upstream_cut'"),
    ('charge = "nothing"', 'charge = "maybe"', 25, "'actual', 'delivered'"),
    ('timezone = "Europe/Berlin"', 'timezone = "Mars/Base"', 2, "no such time zone"),
    ("streams = 20", "streams = ", 21, "no TOML"),
]


@pytest.mark.parametrize(("right", "wrong", "line", "said"), WRONG)
def test_what_is_wrong_is_named_with_its_line(right: str, wrong: str, line: int, said: str) -> None:
    assert right in GOOD
    with pytest.raises(SettingsError, match=rf"line {line}\b") as error:
        read_config(GOOD.replace(right, wrong, 1), "lastchunk.toml")
    assert said in str(error.value)


def test_every_ending_can_be_charged_by_a_row_of_its_own() -> None:
    assert set(get_args(EndingName)) == {ending.value for ending in Ending}


def test_a_key_is_read_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = read_config(GOOD, "x").upstreams["openai"]
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SettingsError, match="OPENAI_API_KEY is empty"):
        upstream.api_key()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test ")
    assert upstream.api_key() == "sk-test"
    (tmp_path / "key").write_text("sk-file\n")
    filed = upstream.model_copy(update={"api_key_env": None, "api_key_file": tmp_path / "key"})
    assert filed.api_key() == "sk-file"
    (tmp_path / "key").unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        filed.api_key()
