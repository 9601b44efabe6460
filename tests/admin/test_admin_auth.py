"""Who may use the admin API, and that nobody else learns anything."""

from __future__ import annotations

import hmac
import logging
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from admin_stage import AUTHORIZED, KEY, Admin

from lastchunk.admin import auth
from lastchunk.admin.auth import AdminKey, find_admin_key
from lastchunk.admin.operations import OPERATIONS
from lastchunk.errors import SettingsError

WRONG: dict[str, dict[str, str]] = {
    "no key": {},
    "another key": {"authorization": "Bearer " + "x" * len(KEY)},
    "its beginning": {"authorization": f"Bearer {KEY[:-1]}"},
    "more than it": {"authorization": f"Bearer {KEY}1"},
    "not a bearer's": {"authorization": f"Basic {KEY}"},
    "without a scheme": {"authorization": KEY},
    "as a caller's key": {"api-key": KEY},
    "an empty one": {"authorization": "Bearer"},
    "not ASCII": {"authorization": "Bearer \xe9\xe9\xe9"},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG.keys())
def test_whoever_has_not_the_key_gets_nothing(one_admin: Admin, headers: dict[str, str]) -> None:
    raw = {name: value.encode("latin-1") for name, value in headers.items()}
    with httpx.Client(base_url=one_admin.url, headers=raw, trust_env=False) as http:
        for operation in OPERATIONS:
            answer = http.request(operation.method, operation.path.replace("{id}", "call_1"))
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "unauthorized"
            assert answer.headers["www-authenticate"].startswith("Bearer")
        assert http.get("/nothing/here").status_code == 401


def test_two_keys_are_none(one_admin: Admin) -> None:
    twice = [("authorization", f"Bearer {KEY}"), ("authorization", f"Bearer {KEY}")]
    answer = httpx.get(one_admin.url + "/admin/v1/keys", headers=twice, trust_env=False)
    assert answer.status_code == 401


def test_the_scheme_may_be_written_in_any_case(one_admin: Admin) -> None:
    headers = {"authorization": f"bEARER {KEY}"}
    answer = httpx.get(one_admin.url + "/admin/v1/health", headers=headers, trust_env=False)
    assert answer.status_code == 200


def test_a_callers_key_opens_nothing_here(one_admin: Admin) -> None:
    secret = one_admin.post("/admin/v1/keys", {"account": "acme"}, 201)["secret"]
    headers = {"authorization": f"Bearer {secret}"}
    answer = httpx.get(one_admin.url + "/admin/v1/keys", headers=headers, trust_env=False)
    assert answer.status_code == 401


def test_the_public_port_has_no_admin_api(one_admin: Admin) -> None:
    answer = httpx.get(one_admin.public_url + "/admin/v1/keys", headers=AUTHORIZED, trust_env=False)
    assert answer.status_code != 200
    assert "items" not in answer.text


def test_keys_are_compared_as_hashes_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []
    real = hmac.compare_digest

    def seen(one: Any, other: Any) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", seen)
    key = AdminKey(KEY)
    presented = (
        "",
        "Bearer",
        f"Basic {KEY}",
        "Bearer x",
        "Bearer " + "x" * 10_000,
        f"Bearer {KEY}",
    )
    assert [key.opens(one) for one in presented] == [False] * 5 + [True]
    assert len(compared) == len(presented)
    assert {len(half) for pair in compared for half in pair} == {32}
    assert KEY not in repr(vars(key))


@pytest.mark.parametrize("key", ["", "fifteen-chars-x", "has a blank inside it", "é" * 20])
def test_a_key_that_is_too_weak_is_refused_at_the_start(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key, encoding="utf-8")
    with pytest.raises(SettingsError) as refused:
        find_admin_key(tmp_path / "key")
    assert not key or key not in str(refused.value)


def test_the_key_is_read_from_the_file_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(auth.VARIABLE, raising=False)
    assert find_admin_key(None) is None
    monkeypatch.setenv(auth.VARIABLE, "of-the-environment")
    (tmp_path / "key").write_text(f"{KEY}\n")
    from_file, from_environment = find_admin_key(tmp_path / "key"), find_admin_key(None)
    assert from_file is not None
    assert from_environment is not None
    assert from_file.opens(f"Bearer {KEY}")
    assert from_environment.opens("Bearer of-the-environment")
    with pytest.raises(SettingsError, match="cannot be read"):
        find_admin_key(tmp_path / "missing")


def test_what_is_no_http_is_refused_and_not_quoted(
    one_admin: Admin, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    host, port = one_admin.url.removeprefix("http://").split(":")
    for line in (b"Authorization: Bearer " + KEY.encode() * 1000, b"Bearer " + KEY.encode()):
        with socket.create_connection((host, int(port)), timeout=10) as broken:
            broken.sendall(b"GET /admin/v1/keys HTTP/1.1\r\nhost: x\r\n" + line + b"\r\n\r\n")
            assert broken.recv(100).startswith(b"HTTP/1.0 400")
    assert KEY not in caplog.text


def test_no_secret_is_logged(one_admin: Admin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    made = one_admin.post("/admin/v1/keys", {"account": "acme", "name": "logged"}, 201)
    again = one_admin.post(f"/admin/v1/keys/{made['key']['key_id']}/rotate", status=201)
    assert made["key"]["key_id"] in caplog.text
    for secret in (KEY, made["secret"], again["secret"]):
        assert secret.rpartition("-")[2] not in caplog.text
