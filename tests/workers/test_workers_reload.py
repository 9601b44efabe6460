"""The rules are read again by the admin API: in force at every worker, or refused with the line."""

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from fleet import STREAMED, fleet, until

from lastchunk.simulator import Simulator

KEY = "an-admin-key-of-some-length"
NOTHING = '[[limits]]\nname = "nothing"\nrequests = 0\nper = "day"\n'


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def post(url: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = b"" if body is None else json.dumps(body).encode()
    told = {"content-type": "application/json"} if body is not None else {}
    request = urllib.request.Request(url, data=data, headers=told | headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("workers", [1, 2])
def test_new_rules_hold_for_every_worker_and_bad_ones_for_none(
    sim: Simulator, tmp_path: Path, workers: int
) -> None:
    rules, key, port = tmp_path / "rules.toml", tmp_path / "key", free_port()
    rules.write_text("")
    key.write_text(KEY)
    options = ("--config", str(rules), "--admin-port", str(port), "--admin-key-file", str(key))
    url = f"http://127.0.0.1:{port}/admin/v1/reload"
    with fleet(sim.url, str(tmp_path / "l.db"), tmp_path, *options, workers=workers) as running:

        def asked() -> int:
            return post(f"{running.url}/v1/chat/completions", STREAMED)[0]

        def reload() -> tuple[int, Any]:
            return post(url, authorization=f"Bearer {KEY}")

        assert asked() == 200
        rules.write_text(NOTHING)
        status, told = reload()
        assert (status, json.loads(told)["limits"]) == (200, 1)
        until(lambda: {asked() for _ in range(12)} == {429}, "the limit at every worker")
        assert "starts again now" not in running.said()
        unset = '[upstreams.a]\nurl = "http://h"\napi_key_env = "LASTCHUNK_TEST_UNSET"\n'
        for bad in (unset, "[[limits]]\n", '[[when_client_leaves]]\ndo = "canzel"\n'):
            rules.write_text(bad)
            status, told = until(lambda: _answered(reload), "an admin API")
            assert status == 409, told
            assert asked() == 429
        assert running.end() == 0


def _answered(reload: Any) -> Any:
    """Between two workers nobody may listen for a moment."""
    try:
        return reload()
    except (urllib.error.URLError, ConnectionError):
        return None
