"""Which rule is in force for a call, and what is said about rows that cannot be used."""

from dataclasses import replace
from typing import Any

import pytest

from lastchunk.errors import SettingsError
from lastchunk.leaving.providers import NAMES, PROVIDERS, provider_of
from lastchunk.leaving.rules import BUILT_IN, DEFAULT_THRESHOLD_NANO, Rules, read_rules
from lastchunk.meter.departure import AfterCancel, LeavePolicy, Why
from lastchunk.settings import load_settings
from lastchunk.startup import leaving_house
from lastchunk.wire.dialect import Dialect
from lastchunk.wire.request import CallRequest

REQUEST = CallRequest(
    dialect=Dialect.CHAT,
    model="gpt-4o-mini",
    stream=True,
    usage_requested=False,
    upstream="api.openai.com",
    body_bytes=100,
)
STOPS, WHOLE, UNKNOWN = AfterCancel.STOPS, AfterCancel.BILLS_WHOLE, AfterCancel.UNKNOWN
CANCEL, DRAIN, CHEAPER = LeavePolicy.CANCEL, LeavePolicy.DRAIN, LeavePolicy.CHEAPER


def rules(*rows: dict[str, Any]) -> Rules:
    return read_rules(rows, "lastchunk.toml")


@pytest.mark.parametrize(
    ("upstream", "model", "after"),
    [
        ("api.openai.com", "gpt-4o", STOPS),
        ("API.OpenAI.com:443", "gpt-4o", STOPS),
        ("eu.api.openai.com", "gpt-4o", STOPS),
        ("mine.openai.azure.com", "gpt-4o", STOPS),
        ("api.openai.com.evil.example", "gpt-4o", UNKNOWN),
        ("bedrock-runtime.eu-west-1.amazonaws.com", "amazon.nova", WHOLE),
        ("s3.amazonaws.com", "amazon.nova", UNKNOWN),
        ("api.groq.com", "llama-3", WHOLE),
        ("generativelanguage.googleapis.com", "gemini-2.5", WHOLE),
        ("europe-west4-aiplatform.googleapis.com", "gemini-2.5", WHOLE),
        ("openrouter.ai", "openai/gpt-4o", STOPS),
        ("openrouter.ai", "google/gemini-2.5-pro", WHOLE),
        ("openrouter.ai", "meta-llama/llama-3", UNKNOWN),
        ("127.0.0.1:8000", "gpt-4o", UNKNOWN),
        ("[::1]:8000", "gpt-4o", UNKNOWN),
        ("", "gpt-4o", UNKNOWN),
    ],
)
def test_the_built_in_table_goes_by_host_and_at_a_relay_by_model(
    upstream: str, model: str, after: AfterCancel
) -> None:
    rule = BUILT_IN.rule_for(replace(REQUEST, upstream=upstream, model=model), "default")
    assert rule.after_cancel is after
    assert rule.policy is (DRAIN if after is WHOLE else CANCEL)


def test_every_provider_of_the_table_is_found_by_its_own_hosts() -> None:
    assert len(set(NAMES)) == len(NAMES)
    for provider in PROVIDERS:
        assert provider.source
        assert provider.dated
        for host in provider.hosts:
            upstream = host.replace("*", "x")
            model = provider.models[0] if provider.models else "some-model"
            assert provider_of(replace(REQUEST, upstream=upstream, model=model)) is provider


@pytest.mark.parametrize("upstream", ["api.openai.com", "llm.local", "openrouter.ai"])
def test_a_response_in_the_background_goes_on_wherever_it_is(upstream: str) -> None:
    request = replace(REQUEST, upstream=upstream, background=True)
    assert BUILT_IN.rule_for(request, "a").after_cancel is WHOLE


@pytest.mark.parametrize(
    ("upstream", "model", "after"),
    [
        ("api.openai.com", "gpt-4o", UNKNOWN),
        ("openrouter.ai", "openai/gpt-4o", WHOLE),
        ("api.groq.com", "llama-3", WHOLE),
    ],
)
def test_what_is_said_about_streams_is_not_said_about_whole_answers(
    upstream: str, model: str, after: AfterCancel
) -> None:
    request = replace(REQUEST, upstream=upstream, model=model, stream=False)
    assert BUILT_IN.rule_for(request, "a").after_cancel is after


def test_the_first_row_that_fits_decides_and_all_it_names_must_fit() -> None:
    found = rules(
        {"account": "acme/web", "upstream": "*.openai.com", "do": "cancel"},
        {"account": "acme/*", "model": "gpt-4o*", "do": "cheaper", "threshold_usd": "0.002"},
        {"account": "acme", "do": "drain"},
        {"do": "cancel"},
    )
    assert found.rule_for(REQUEST, "acme/web").policy is CANCEL
    assert found.rule_for(REQUEST, "acme/web/ann").name == "when_client_leaves row 1"
    cheaper = found.rule_for(REQUEST, "acme/batch")
    assert (cheaper.policy, cheaper.threshold_nano) == (CHEAPER, 2_000_000)
    assert found.rule_for(replace(REQUEST, model="o3"), "acme").policy is DRAIN
    assert found.rule_for(REQUEST, "acmes").name == "when_client_leaves row 4"
    assert found.rule_for(REQUEST, "acmes").why is Why.POLICY_SAYS


def test_an_upstream_may_name_its_port() -> None:
    found = rules({"upstream": "LLM.local:8000", "do": "drain"})
    for upstream, policy in (
        ("llm.local:8000", DRAIN),
        ("llm.local:9", CANCEL),
        ("llm.local", CANCEL),
    ):
        assert found.rule_for(replace(REQUEST, upstream=upstream), "a").policy is policy


def test_a_provider_alone_asks_for_its_calls_and_with_an_upstream_says_who_answers_there() -> None:
    found = rules(
        {"provider": "groq", "do": "cancel"},
        {"upstream": "llm.local", "provider": "groq"},
        {"upstream": "vllm.local", "provider": "vllm"},
    )
    groq = found.rule_for(replace(REQUEST, upstream="api.groq.com"), "a")
    assert (groq.policy, groq.after_cancel) == (CANCEL, WHOLE)
    told = found.rule_for(replace(REQUEST, upstream="llm.local:80"), "a")
    assert (told.policy, told.after_cancel) == (CANCEL, WHOLE)  # the first row is for it, too
    stops = found.rule_for(replace(REQUEST, upstream="vllm.local"), "a")
    assert (stops.policy, stops.after_cancel, stops.name) == (
        CANCEL, STOPS, "when_client_leaves row 3",
    )  # fmt: skip


def test_a_row_may_say_only_what_is_billed() -> None:
    found = rules({"upstream": "api.openai.com", "bills": "whole"}, {"do": "cheaper"})
    rule = found.rule_for(REQUEST, "a")
    assert (rule.policy, rule.after_cancel) == (CHEAPER, WHOLE)
    assert rule.threshold_nano == DEFAULT_THRESHOLD_NANO
    assert rules({"bills": "whole"}).rule_for(REQUEST, "a").policy is DRAIN


WRONG: list[tuple[Any, str]] = [
    ({"do": "drian"}, 'do = \'drian\' is not known: write one of "cancel", "drain", "cheaper"'),
    ({"do": 1}, "do = 1 is not known"),
    (
        {"do": "drain", "provider": "opneai"},
        "provider = 'opneai' is not known: write one of openai,",
    ),
    ({"do": "drain", "provider": ["openai"]}, "is not known: write one of"),
    ({"do": "drain", "acount": "x"}, "'acount' is no key: write one of account, bills, do, model"),
    ({"provider": "vllm", "do": "drain"}, "has no host of its own: write the upstream, too"),
    ({"upstream": "x"}, "it says nothing: write do ="),
    ({"provider": "groq"}, "it says nothing"),
    ({"bills": "half"}, 'bills = \'half\' is not known: write one of "stops", "whole", "unknown"'),
    ({"do": "drain", "upstream": ""}, "upstream = '' cannot be used: write a host"),
    ({"do": "drain", "model": 4}, "model = 4 cannot be used"),
    ({"do": "drain", "account": "a*b"}, "account = 'a*b' cannot be used: write a path"),
    ({"do": "drain", "account": "/*"}, "cannot be used"),
    ({"do": "drain", "threshold_usd": "1"}, 'a threshold_usd needs do = "cheaper"'),
    ({"do": "cheaper", "threshold_usd": "a lot"}, "write USD from 0 to 1000"),
    ({"do": "cheaper", "threshold_usd": -1}, "write USD from 0 to 1000"),
    ({"do": "cheaper", "threshold_usd": True}, "write USD from 0 to 1000"),
    ({"do": "cheaper", "threshold_usd": "NaN"}, "write USD from 0 to 1000"),
    ("drain", "it is no table"),
]


@pytest.mark.parametrize(("row", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_row_that_cannot_be_used_is_named_with_what_may_be_written(
    row: Any, message: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        read_rules([{"do": "cancel"}, row], "lastchunk.toml")
    assert str(caught.value).startswith("lastchunk.toml: [[when_client_leaves]] row 2: ")
    assert message in str(caught.value)


def test_rows_and_caps_come_from_the_settings_file(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lastchunk.toml").write_text(
        'drain_seconds = 5\n[[when_client_leaves]]\naccount = "acme/*"\ndo = "drain"\n'
    )
    departing = leaving_house(load_settings()).departing(REQUEST, "acme/ann")
    assert departing.rule.policy is DRAIN
    assert departing.caps.seconds == 5
    monkeypatch.setenv("LASTCHUNK_DRAINS_AT_ONCE", "-1")
    with pytest.raises(SettingsError, match="LASTCHUNK_DRAINS_AT_ONCE"):
        load_settings()
