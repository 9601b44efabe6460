"""What the admin API answers when it cannot: the ledger is away, or the answer takes too long."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from admin_stage import AUTHORIZED, KEY, Admin

from lastchunk.admin import AdminOptions, AdminServer, Sources
from lastchunk.admin.audit import audited
from lastchunk.admin.auth import AdminKey
from lastchunk.admin.operation import Asked, Problem
from lastchunk.admin.operations import OPERATIONS
from lastchunk.config import NO_RULES
from lastchunk.errors import LedgerUnavailable, SettingsError

Answered = tuple[int, Any]


def asked_once(admin: Admin, path: str, ledger_url: str | None = None) -> Answered:
    """One answer of a listener of its own, beside the gateway of another."""

    async def ask() -> Answered:
        url = admin.ledger_url if ledger_url is None else ledger_url
        sources = Sources(url, admin.bookkeeper, rules=lambda: NO_RULES)
        async with AdminServer(AdminOptions(AdminKey(KEY), port=0), sources) as server:
            async with httpx.AsyncClient(headers=AUTHORIZED, trust_env=False) as http:
                answer = await http.get(server.url + path, timeout=20)
                return answer.status_code, answer.json()

    return asyncio.run(ask())


def replaced(respond: Callable[[Sources, Asked], Any]) -> tuple[Any, ...]:
    """All endpoints, with the list of calls answered so, and in a hundredth of a second."""
    return tuple(
        replace(one, respond=respond, seconds=0.01) if one.name == "list_calls" else one
        for one in OPERATIONS
    )


def test_a_ledger_that_is_away_is_told(one_admin: Admin, tmp_path: Path) -> None:
    status, answer = asked_once(one_admin, "/admin/v1/calls", str(tmp_path / "none.db"))
    assert (status, answer["error"]["code"]) == (503, "ledger_unavailable")
    status, answer = asked_once(one_admin, "/admin/v1/health", str(tmp_path / "none.db"))
    assert (status, answer["status"]) == (200, "ok")


def test_what_takes_too_long_is_given_up(one_admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    def sleeps(_: Sources, asked: Asked) -> Any:
        time.sleep(1.5)

    monkeypatch.setattr("lastchunk.admin.app.OPERATIONS", replaced(sleeps))
    status, answer = asked_once(one_admin, "/admin/v1/calls")
    assert (status, answer["error"]["code"]) == (504, "took_too_long")


def test_an_audit_that_nobody_waits_for_ends(one_admin: Admin) -> None:
    late = Asked(None, None, "", time.monotonic() - 1)
    with pytest.raises(Problem, match="beside the gateway"):
        audited(one_admin.sources, late)
    leaving = Sources(one_admin.ledger_url, one_admin.bookkeeper, rules=lambda: NO_RULES)
    leaving.close()
    with pytest.raises(Problem, match="stopping"):
        audited(leaving, Asked(None, None, "", time.monotonic() + 60))


def test_an_audit_of_no_ledger_is_told(one_admin: Admin, tmp_path: Path) -> None:
    nowhere = Sources(str(tmp_path / "none.db"), one_admin.bookkeeper, rules=lambda: NO_RULES)
    with pytest.raises(LedgerUnavailable, match=r"none\.db"):
        audited(nowhere, Asked(None, None, "", time.monotonic() + 60))


def test_a_long_list_is_read_only_while_somebody_waits() -> None:
    Asked(None, None, "", time.monotonic() + 60).check_time()
    with pytest.raises(Problem) as problem:
        Asked(None, None, "", time.monotonic() - 0.001).check_time()
    assert problem.value.code == "took_too_long"


def test_a_fault_of_ours_shows_no_stack(
    one_admin: Admin, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_: Sources, asked: Asked) -> Any:
        raise RuntimeError("quotes what it should not")

    monkeypatch.setattr("lastchunk.admin.app.OPERATIONS", replaced(fails))
    caplog.set_level(logging.DEBUG)
    status, answer = asked_once(one_admin, "/admin/v1/calls")
    assert (status, answer["error"]["code"]) == (500, "failed")
    assert "quotes" not in caplog.text + answer["error"]["message"]
    assert "RuntimeError" in caplog.text


def test_a_port_that_is_taken_is_told(one_admin: Admin) -> None:
    async def listen() -> None:
        sources = Sources(one_admin.ledger_url, one_admin.bookkeeper, rules=lambda: NO_RULES)
        port = int(one_admin.url.rpartition(":")[2])
        async with AdminServer(AdminOptions(AdminKey(KEY), port=port), sources):
            raise AssertionError("two listen on one port")

    with pytest.raises(SettingsError, match="the admin API cannot listen on 127"):
        asyncio.run(listen())
