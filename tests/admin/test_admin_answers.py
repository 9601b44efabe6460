"""What the admin API answers, and that it agrees with the ledger; on both databases."""

from __future__ import annotations

import asyncio
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from admin_stage import AUTHORIZED, KEY, Admin, admin_beside, until
from ledger_facts import execute, make_call

from lastchunk.admin import house
from lastchunk.admin.schema import money
from lastchunk.config import read_config
from lastchunk.errors import SettingsError
from lastchunk.gateway.budget import limits_of
from lastchunk.ledger import CallFilter, Reader
from lastchunk.ledger.keys import Keyring
from lastchunk.ledger.windows import Holds
from lastchunk.limits import Admission


def test_a_key_is_made_used_rotated_and_revoked(admin: Admin) -> None:
    asked = {"account": "acme/search", "name": "ci", "models": ["gpt-*"], "expires_in_seconds": 60}
    made = admin.post("/admin/v1/keys", asked, 201)
    key_id = made["key"]["key_id"]
    found = Keyring(admin.sources.keys.all()).find(made["secret"])
    assert found is not None
    assert (found.account, found.models) == ("acme/search", ("gpt-*",))
    assert made["key"]["state"] == "valid"
    again = admin.post(f"/admin/v1/keys/{key_id}/rotate", {"overlap_seconds": 30}, 201)
    assert again["secret"] != made["secret"]
    states = {key["key_id"]: key["state"] for key in admin.get("/admin/v1/keys")["items"]}
    assert (states[key_id], states[again["key"]["key_id"]]) == ("rotated_out", "valid")
    assert admin.post(f"/admin/v1/keys/{key_id}/revoke")["state"] == "revoked"
    assert admin.post(f"/admin/v1/keys/{key_id}/revoke")["state"] == "revoked"
    refused = admin.post(f"/admin/v1/keys/{key_id}/rotate", status=409)
    assert refused["error"]["code"] == "conflict"
    assert made["secret"] not in admin.http.get(admin.url + "/admin/v1/keys").text


def test_keys_come_in_pages_and_by_state(admin: Admin) -> None:
    for number in range(5):
        admin.post("/admin/v1/keys", {"account": f"paged/u{number}"}, 201)
    pages = list(admin.pages("/admin/v1/keys", account="paged", limit=2))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [key["account"] for page in pages for key in page] == [f"paged/u{n}" for n in range(5)]
    assert admin.get("/admin/v1/keys", account="paged", state="expired")["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "sent", "status", "code"),
    [
        ("GET", "/admin/v1/nothing", {}, 404, "not_found"),
        ("GET", "/admin/v1/calls/call_unknown", {}, 404, "not_found"),
        ("GET", "/admin/v1/calls/%00", {}, 404, "not_found"),
        ("POST", "/admin/v1/keys/nokey/revoke", {}, 404, "not_found"),
        ("POST", "/admin/v1/keys/nokey/rotate", {}, 404, "not_found"),
        ("DELETE", "/admin/v1/keys", {}, 405, "method_not_allowed"),
        ("POST", "/admin/v1/keys", {"content": b"{"}, 415, "wrong_content_type"),
        ("POST", "/admin/v1/keys", {"json": {"account": "a b"}}, 422, "invalid"),
        ("POST", "/admin/v1/keys", {"json": {"account": "a", "colour": 1}}, 422, "invalid"),
        ("POST", "/admin/v1/keys", {"json": {"account": "a/*"}}, 422, "invalid"),
        ("POST", "/admin/v1/keys", {"json": []}, 422, "invalid"),
        ("GET", "/admin/v1/calls?limit=0", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?limit=201", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?limit=2&limit=3", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?colour=red", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?cursor=nonsense", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?since=2026-11-01T00:00:00", {}, 422, "invalid"),
        ("GET", "/admin/v1/calls?account=%00%ff", {}, 200, None),
        ("GET", "/admin/v1/reports/spend?by=colour", {}, 422, "invalid"),
        ("GET", "/admin/v1/reports/spend?by=model,model", {}, 422, "invalid"),
        ("POST", "/admin/v1/reload", {}, 501, "not_available"),
    ],
)
def test_errors_have_one_shape(
    admin: Admin, method: str, path: str, sent: dict[str, object], status: int, code: str | None
) -> None:
    answer = admin.http.request(method, admin.url + path, **sent)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    if code is not None:
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"]
    assert status != 405 or answer.headers["allow"] == "GET, POST"


def test_a_body_is_bounded_and_must_be_json(admin: Admin) -> None:
    url, json = admin.url + "/admin/v1/keys", {"content-type": "application/json"}
    assert admin.http.post(url, content=b"x" * 70_000, headers=json).status_code == 413
    assert admin.http.post(url, content=b"{", headers=json).status_code == 400
    assert admin.http.post(url, content=b'{"account": "\xff"}', headers=json).status_code == 400


def test_every_call_comes_exactly_once_while_others_are_written(admin: Admin) -> None:
    with Reader.open(admin.ledger_url) as reader:
        before = [record.call_id for record in reader.calls(CallFilter(account="acme"))]
    stop, written = threading.Event(), 0

    def write() -> None:
        nonlocal written
        while not stop.wait(0.002):
            admin.write_call(account="acme/late")
            written += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for size in (1, 3, 5, 200):
            pages, already = [], written
            for page in admin.pages("/admin/v1/calls", account="acme", limit=size):
                pages.append(page)
                until(lambda seen=written: written > seen, "another call")
            found = [call["call_id"] for page in pages for call in page]
            assert len(found) == len(set(found)), size
            assert [one for one in found if one in set(before)] == before, size
            assert all(len(page) == size for page in pages[:-1]), size
            assert written >= already + len(pages), size
    finally:
        stop.set()
        writer.join()


def test_a_call_is_shown_as_the_ledger_has_it(admin: Admin) -> None:
    call = admin.write_call(account="shown/one", cost=12_345, tags=(("team", "search"),))
    (listed,) = admin.get("/admin/v1/calls", account="shown", tag="team=search")["items"]
    assert listed["call_id"] == call.call_id
    assert listed["cost_usd"] == dict.fromkeys(("low", "best", "high"), "0.000012345")
    assert listed["charge_usd"] == "0.000012345"
    assert listed["input_tokens"] == {"low": 12, "best": 12, "high": 12, "basis": "reported"}
    assert (listed["ending"], listed["open"], listed["held_usd"]) == ("completed", False, None)
    assert datetime.fromisoformat(listed["opened_at"]).timestamp() * 1000 == call.opened_ms
    shown = admin.get(f"/admin/v1/calls/{call.call_id}")
    assert shown["call"] == listed
    kinds = [row["kind"] for row in shown["tables"]["entries"]["rows"]]
    assert kinds == ["reserved", "settled"]
    assert shown["tables"]["entries"]["rows"][1]["cost_usd"] == "0.000012345"
    assert admin.get(f"/admin/v1/calls/{listed['response_id']}")["call"] == listed


def test_open_calls_are_those_that_are_under_way(admin: Admin) -> None:
    admin.write_call(account="under-way")
    call = admin.write_call(account="under-way", settled=False)
    (only,) = admin.get("/admin/v1/open-calls", account="under-way")["items"]
    assert (only["call_id"], only["open"], only["ending"]) == (call.call_id, True, None)
    assert only["held_usd"] == "0.000009000"
    since = datetime.fromtimestamp(call.opened_ms / 1000 + 60, UTC).isoformat()
    assert admin.get("/admin/v1/open-calls", since=since, account="under-way")["items"] == []


def test_limits_are_shown_with_their_standings(admin: Admin) -> None:
    spent, opened = [0, 0, 0], 0
    with Reader.open(admin.ledger_url) as reader:
        for record in reader.calls(CallFilter(account="acme")):
            opened += record.is_open
            for team in range(3):
                if record.call.account == f"acme/team{team}" and record.standing.cost is not None:
                    spent[team] += record.standing.cost.best
    answer = admin.get("/admin/v1/limits")
    assert answer["timezone"] == "Europe/Berlin"
    found = {(one["name"], one["path"]): one for one in answer["items"]}
    for team in range(3):
        month = found["each team, a month", f"acme/team{team}"]
        assert month["amount"] == "0.500000000"
        assert month["used"] == f"0.{spent[team]:09}"
        left = 500_000_000 - spent[team] - int(month["held"].replace(".", ""))
        assert month["remaining"] == f"0.{left:09}"
        assert (month["overshoot"], month["unit"]) == ("0.000000000", "usd")
        assert datetime.fromisoformat(month["resets_at"]) > datetime.now(UTC)
    at_once = found["acme at once", "acme"]
    assert (at_once["held"], at_once["amount"], at_once["resets_at"]) == (str(opened), "5", None)
    everybody = found["requests", ""]
    assert int(everybody["used"]) >= 12
    pages = list(admin.pages("/admin/v1/limits", limit=2))
    assert {(one["name"], one["path"]) for page in pages for one in page} == set(found)
    assert len(admin.get("/admin/v1/limits", name="requests")["items"]) == 1


def test_reports_add_up_as_the_reader_does(admin: Admin) -> None:
    with Reader.open(admin.ledger_url) as reader:
        (whole,) = reader.spend((), CallFilter(account="acme/team2"))
    query = {"account": "acme/team2", "by": "account,model"}
    table = admin.get("/admin/v1/reports/spend", **query)["table"]
    (row,) = table["rows"]
    assert (row["account"], row["model"], row["calls"]) == ("acme/team2", "gpt-5", whole.calls)
    assert row["cost_usd"] == f"{whole.cost.best / 10**9:.9f}"
    kinds = {column["name"]: column["kind"] for column in table["columns"]}
    assert list(kinds) == list(row)
    assert (kinds["cost_usd"], kinds["cost_usd_low"]) == ("usd", "usd")
    shares = admin.get("/admin/v1/reports/certainty", account="acme/team2")["table"]["rows"]
    assert shares[0]["basis"] == "reported"
    assert shares[0]["cost_usd"] == row["cost_usd"]
    assert admin.get("/admin/v1/reports/departures")["table"]["rows"] == []
    limited = admin.get("/admin/v1/reports/spend", account="acme", by="account", limit=1)["table"]
    assert (len(limited["rows"]), limited["left_out"] >= 2) == (1, True)


def test_the_ledger_is_verified_by_one_at_a_time(
    admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = admin.post("/admin/v1/verify")
    assert (clean["clean"], clean["found"], clean["discrepancies"]) == (True, 0, [])
    assert clean["calls"] >= 12
    inside, go_on = threading.Event(), threading.Event()
    real = house.audited

    def slow(*given: object) -> object:
        inside.set()
        assert go_on.wait(10)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(house, "audited", slow)
    first = threading.Thread(target=admin.post, args=("/admin/v1/verify",))
    first.start()
    assert inside.wait(10)
    assert admin.post("/admin/v1/verify", status=409)["error"]["code"] == "conflict"
    assert admin.http.get(admin.public_url + "/healthz").status_code == 200
    go_on.set()
    first.join()
    assert admin.post("/admin/v1/verify")["clean"]


def test_limits_say_what_the_gateway_decides_by(admin: Admin) -> None:
    """Kept or not kept, the sums are those that admission has under its lock."""
    account = "acme/decided"
    admin.write_call(account=account, cost=7_000_000)
    admin.write_call(account=account, settled=False)

    def standing() -> dict[str, object]:
        items = admin.get("/admin/v1/limits", name="each team, a month", account=account)["items"]
        return items[0]  # type: ignore[no-any-return]

    not_kept = standing()
    now_ms, limits = admin.clock.now_ms(), limits_of(admin.rules)
    admission = Admission(limits, account, Holds(), now_ms, admin.rules.zone, priced=True)
    call = make_call(opened_ms=now_ms, account="elsewhere", hold=0)
    assert admin.ledger.reserve(call, admission).result() is None
    decided = {one.limit.name: one for one in admission.standings}["each team, a month"]
    assert standing() == not_kept
    assert not_kept["used"] == money(decided.used) == "0.007000000"
    assert not_kept["held"] == money(decided.held) == "0.000009000"
    assert not_kept["remaining"] == money(decided.remaining)


def test_a_damaged_ledger_is_told(tmp_path: Path) -> None:
    with admin_beside(str(tmp_path / "ledger.db")) as damaged:
        call = damaged.write_call()
        damaged.write_call()
        execute(damaged.ledger_url, "UPDATE balances SET spent_best = spent_best + 1")
        found = damaged.post("/admin/v1/verify")
    assert (found["clean"], found["found"]) == (False, 1)
    assert found["discrepancies"][0]["subject"] == call.account


def test_health_is_told(admin: Admin) -> None:
    told = admin.get("/admin/v1/health")
    assert told["status"] == "ok"
    assert told["ledger"]["state"] == "ok"


def test_rules_are_read_again_on_the_event_loop(admin: Admin) -> None:
    before = admin.rules

    async def reload() -> None:
        await asyncio.sleep(0)
        admin.rules = read_config('timezone = "UTC"\n', "lastchunk.toml")

    async def refuse() -> None:
        raise SettingsError("lastchunk.toml, line 3: limits[0].usd: nonsense")

    with admin.reloading(reload):
        assert admin.post("/admin/v1/reload") == {
            "timezone": "UTC",
            "upstreams": 0,
            "limits": 0,
            "charges": 0,
        }
    assert admin.get("/admin/v1/limits")["items"] == []
    admin.rules = before
    with admin.reloading(refuse):
        refused = admin.post("/admin/v1/reload", status=409)
    assert "line 3" in refused["error"]["message"]


def test_a_body_that_never_arrives_is_given_up(
    one_admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lastchunk.admin.app.BODY_SECONDS", 0.2)
    host, port = one_admin.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as slow:
        slow.sendall(
            f"POST /admin/v1/keys HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {KEY}\r\n"
            "content-type: application/json\r\ncontent-length: 50\r\n\r\n{".encode()
        )
        assert slow.recv(100).startswith(b"HTTP/1.1 408")


def test_the_document_is_served_without_a_key(one_admin: Admin) -> None:
    answer = one_admin.http.get(
        one_admin.url + "/admin/openapi.json", headers={"authorization": ""}
    )
    assert answer.status_code == 200
    assert answer.json()["openapi"].startswith("3.1")
    assert AUTHORIZED["authorization"] not in answer.text
