"""Keys and several upstreams: who is let in, to what, and what a provider gets to see."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from gateway_stage import CHAT, RunningGateway, Stage, body_of, running, until
from raw_http import Heard, RawUpstream, answer_bytes, exchange, raw_upstream

from lastchunk.bookkeeper import Bookkeeper
from lastchunk.clock import SystemClock
from lastchunk.config import Config, read_config
from lastchunk.errors import LedgerUnavailable, SettingsError
from lastchunk.ledger import Ledger, Reader
from lastchunk.ledger.keys import KeyTable
from lastchunk.pricing.book import PriceBook
from lastchunk.simulator import Simulator

SECRET = "sk-of-the-provider"
ANSWER = (
    b'{"id":"r1","model":"gpt-4o","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":1}}'
)
JSON = [("Content-Type", "application/json")]


@dataclass
class House:
    """A gateway with a ledger and keys of its own, before a bare upstream."""

    gateway: RunningGateway
    upstream: RawUpstream
    table: KeyTable
    reader: Reader

    def key(self, account: str = "acme", **rules: Any) -> str:
        _, text = self.table.create(account, "", SystemClock().now_ms(), **rules)
        self.gateway.call(self.gateway.gateway._door.read_keys)
        return text

    def ask(self, key: str | None, path: str = "/v1/chat/completions", **more: Any) -> Heard:
        headers = {"Content-Type": "application/json"} | more.pop("headers", {})
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        body = more.pop("body", None) or body_of(CHAT | more)
        return exchange(self.gateway.port, "POST", path, headers, body)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    monkeypatch.setenv("TEST_PROVIDER_KEY", SECRET)
    with ExitStack() as stack:
        upstream = stack.enter_context(raw_upstream(answer_bytes(ANSWER, headers=JSON)))
        config = read_config(
            f"""
            [upstreams.main]
            url = "{upstream.url}"
            models = ["gpt-*"]
            api_key_env = "TEST_PROVIDER_KEY"
            [upstreams.local]
            url = "{upstream.url}/local"
            models = ["llama*"]
            """,
            "lastchunk.toml",
        )
        url = str(tmp_path / "ledger.db")
        clock = SystemClock()
        books = Bookkeeper(Ledger.open(url, clock=clock), PriceBook.load(None), clock)
        stack.callback(books.close)
        table = KeyTable(url)
        stack.callback(table.close)
        reader = stack.enter_context(Reader.open(url))
        gateway = RunningGateway(None, books, open_keys=lambda: KeyTable(url), config=config)
        gateway.start()
        stack.callback(gateway.stop)
        yield House(gateway, upstream, table, reader)


def code_of(heard: Heard) -> tuple[int, str]:
    return heard.status, json.loads(heard.body)["error"]["code"]


def test_without_a_key_the_gateway_is_open_and_its_own_key_goes_to_the_provider(
    house: House,
) -> None:
    assert house.ask("whatever").status == 200
    assert house.upstream.heard[0].all("authorization") == [f"Bearer {SECRET}"]


def test_from_the_first_key_on_every_caller_must_have_one(house: House) -> None:
    key = house.key()
    assert code_of(house.ask(None)) == (401, "missing_api_key")
    assert code_of(house.ask("lc-0000-0000")) == (401, "invalid_api_key")
    assert code_of(house.ask(key[:-1])) == (401, "invalid_api_key")
    assert code_of(house.ask(None, "/v1/embeddings")) == (401, "missing_api_key")
    assert house.upstream.heard == []
    assert house.ask(key).status == 200


def test_a_revoked_and_an_expired_key_open_nothing(house: House) -> None:
    house.key()
    now_ms = SystemClock().now_ms()
    expired = house.key(expires_ms=now_ms - 1)
    revoked = house.key()
    house.table.revoke(revoked.split("-")[1], now_ms)
    house.gateway.call(house.gateway.gateway._door.read_keys)
    for key in (expired, revoked):
        assert code_of(house.ask(key)) == (401, "invalid_api_key")
    assert house.upstream.heard == []


def test_a_revoked_key_is_noticed_by_itself(house: House) -> None:
    key = house.key()
    assert house.ask(key).status == 200
    house.table.revoke(key.split("-")[1], SystemClock().now_ms())
    until(lambda: house.ask(key).status == 401, "the key is noticed to be revoked")


def test_a_callers_key_never_reaches_a_provider(house: House) -> None:
    key = house.key()
    extra = {"x-api-key": key, "Cookie": f"k={key}", "OpenAI-Organization": "org-other"}
    for model in ("gpt-4o", "llama-3"):
        assert house.ask(key, model=model, headers=extra).status == 200
    first, second = house.upstream.heard
    assert first.all("authorization") == [f"Bearer {SECRET}"]
    assert second.all("authorization") == []
    assert all(key not in value for heard in (first, second) for _, value in heard.headers)
    assert first.all("openai-organization") == []
    assert second.line.split(" ")[1] == "/local/v1/chat/completions"


def test_azures_way_of_sending_a_key_opens_too(house: House) -> None:
    key = house.key()
    heard = house.ask(None, headers={"api-key": key})
    assert heard.status == 200
    assert house.upstream.heard[0].all("api-key") == []


def test_a_key_binds_the_account_and_what_is_below_it(house: House) -> None:
    key = house.key("acme/search")
    name = "x-lastchunk-account"
    for alien in ("acme", "acme/searching", "other", "acme/search/", "acme/search//x"):
        told = code_of(house.ask(key, headers={name: alien}))
        assert told == (403, "account_not_allowed"), alien
    assert house.ask(key).status == 200
    assert house.ask(key, headers={name: "acme/search/u42"}).status == 200
    rows = until(lambda: list(house.reader.calls(newest_first=False)), "rows")
    assert [row.call.account for row in rows] == ["acme/search", "acme/search/u42"]


def test_a_keys_models_and_upstreams_hold_for_every_path(house: House) -> None:
    key = house.key(models=["gpt-4o*"], upstreams=["main"])
    assert house.ask(key).status == 200
    assert code_of(house.ask(key, model="gpt-5")) == (403, "model_not_allowed")
    assert code_of(house.ask(key, model="llama-3")) == (403, "model_not_allowed")
    assert code_of(house.ask(key, "/v1/embeddings", model="gpt-5")) == (403, "model_not_allowed")
    assert house.ask(key, "/v1/embeddings", model="gpt-4o-embed").status == 200
    assert code_of(house.ask(key, "/v1/files", body=b"{}")) == (403, "model_not_allowed")
    socket = {"Connection": "Upgrade", "Upgrade": "websocket"}
    asked = {"Authorization": f"Bearer {key}"} | socket
    path = "/v1/realtime?model=gpt-5"
    assert code_of(exchange(house.gateway.port, "GET", path, asked)) == (403, "model_not_allowed")
    assert len(house.upstream.heard) == 2


def test_a_model_that_no_upstream_serves_is_not_found(house: House) -> None:
    client = openai.OpenAI(base_url=f"{house.gateway.url}/v1", api_key=house.key(), max_retries=0)
    with client, pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="mistral", messages=CHAT["messages"])
    assert refused.value.code == "model_not_found"
    assert house.upstream.heard == []


def test_keys_are_in_no_log(house: House, caplog: pytest.LogCaptureFixture) -> None:
    key = house.key()
    with caplog.at_level("DEBUG"):
        house.ask(key)
        house.ask(key + "0")
        house.ask(key, body=b"no json " + key.encode())
    secret = key.split("-")[2]
    assert secret not in caplog.text
    assert SECRET not in caplog.text


def test_who_is_not_let_in_leaves_a_line(house: House, caplog: pytest.LogCaptureFixture) -> None:
    key = house.key(models=("gpt-5*",))
    with caplog.at_level("INFO"):
        house.ask(None)
        house.ask(key)
    assert "nobody known is refused /v1/chat/completions: missing_api_key" in caplog.text
    key_id = key.split("-")[1]
    assert f"acme with the key {key_id} is refused" in caplog.text
    assert key not in caplog.text


def test_a_reload_swaps_all_rules_or_none(
    tmp_path: Path, books: Bookkeeper, reader: Reader, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "lastchunk.toml"
    with Simulator() as sim:
        written = f'[upstreams.a]\nurl = "{sim.url}"\nmodels = ["gpt-4o"]\n'
        file.write_text(written)
        config = read_config(written, str(file))
        with running(None, books, config=config, config_file=file) as gateway:
            stage = Stage(gateway, reader, sim)
            with stage.client() as client:

                def ask(model: str) -> None:
                    client.chat.completions.create(model=model, messages=CHAT["messages"])

                ask("gpt-4o")
                with pytest.raises(openai.NotFoundError):
                    ask("gpt-5")
                file.write_text(written.replace("gpt-4o", "gpt-*") + 'urll = "x"\n')
                with pytest.raises(SettingsError, match=r"lastchunk\.toml, line 4"):
                    gateway.run(gateway.gateway.reload)
                assert "lastchunk.toml, line 4" in caplog.text
                with pytest.raises(openai.NotFoundError):
                    ask("gpt-5")
                file.write_text(written.replace("gpt-4o", "gpt-*"))
                gateway.run(gateway.gateway.reload)
                ask("gpt-5")


def test_while_keys_cannot_be_read_nobody_spends_the_gateways_own_key(
    books: Bookkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away() -> KeyTable:
        raise LedgerUnavailable("the ledger is away")

    monkeypatch.setenv("TEST_PROVIDER_KEY", SECRET)
    with raw_upstream(answer_bytes(ANSWER, headers=JSON)) as upstream:
        told = f'[upstreams.a]\nurl = "{upstream.url}"\napi_key_env = "TEST_PROVIDER_KEY"\n'
        config: Config = read_config(told, "lastchunk.toml")
        with running(None, books, config=config, open_keys=away) as gateway:
            for key in ("lc-1-2", "sk-of-somebody"):
                headers = {"Authorization": f"Bearer {key}"}
                heard = exchange(
                    gateway.port, "POST", "/v1/chat/completions", headers, body_of(CHAT)
                )
                assert code_of(heard) == (503, "keys_not_read")
        assert upstream.heard == []
