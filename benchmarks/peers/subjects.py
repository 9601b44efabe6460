"""What is measured: each gateway as a process on one core, before the same provider."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import install
from lastchunk.clock import SystemClock
from lastchunk.ledger.keys import KeyTable

ACCOUNT, LEDGER, KEY = "acme/search/u42", "ledger.db", "key"
START_SECONDS = 90.0
WORDS = "Tell me about the harbour at dawn. " * 20


@dataclass(frozen=True)
class Subject:
    """A gateway: how it is installed and started, and what its requests have besides."""

    name: str
    command: Callable[[Path, Path, int, int], list[str]]
    """From the cache, a folder for its files, its port and the provider's port."""
    path: str = "/v1/chat/completions"
    headers: dict[str, str] = field(default_factory=dict)
    is_slow: bool = False
    """So much slower that it is measured in fewer rounds."""
    key: Callable[[Path], str] = lambda _: "sk"
    """What callers present, from the folder for its files, once it runs."""


@dataclass
class Running:
    """A subject that is up. `pid` None: there is no gateway, callers ask the provider."""

    subject: Subject
    port: int
    provider: int
    pid: int | None = None
    key: str = "sk"

    def request(self, tokens: int, rate: int) -> str:
        body = json.dumps(
            {
                "model": "gpt-4o",
                "stream": True,
                "user": f"bench:{tokens},{rate}",
                "messages": [{"role": "user", "content": WORDS}],
            },
            separators=(",", ":"),
        )
        told = {
            "host": "bench",
            "authorization": f"Bearer {self.key}",
            "content-type": "application/json",
        }
        if self.subject.name == "Portkey":
            told["x-portkey-custom-host"] = f"http://127.0.0.1:{self.provider}/v1"
        told |= self.subject.headers | {"content-length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
        return f"POST {self.subject.path} HTTP/1.1\r\n{head}\r\n{body}"

    def cpu_seconds(self) -> float:
        """Of all its processes, user and system."""
        ticks = sum(sum(map(int, stat.rpartition(")")[2].split()[11:13])) for stat in self._stats())
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident_mb(self) -> float:
        pages = sum(int(stat.rpartition(")")[2].split()[21]) for stat in self._stats())
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def _stats(self) -> list[str]:
        return [] if self.pid is None else [_stat(pid) for pid in _tree(self.pid)]


def lastchunk(cache: Path, folder: Path, port: int, provider: int) -> list[str]:
    """With everything on: keys, limits at each level of the account's path, charges, metrics."""
    with closing(KeyTable(str(folder / LEDGER))) as table:
        _, secret = table.create(ACCOUNT, "bench", SystemClock().now_ms())
    (folder / KEY).write_text(secret)
    (folder / "lastchunk.toml").write_text(
        f"""[upstreams.bench]
url = "http://127.0.0.1:{provider}"
{_limits()}
[[charges]]
endings = ["caller_left"]
charge = "delivered"
"""
    )
    code = "from lastchunk.cli import main; main()"
    files = ["--config", str(folder / "lastchunk.toml"), "--ledger", str(folder / LEDGER)]
    return [sys.executable, "-c", code, "serve", *files, "--port", str(port)]


def _limits() -> str:
    """Limits of every kind that none of the loads reaches."""
    kinds = ('usd = "1e9"\nper = "month"', f'tokens = {10**15}\nper = "day"', "streams = 100000")
    paths = [ACCOUNT.rsplit("/", up)[0] for up in range(3)]
    return "\n".join(
        f"[[limits]]\nname = '{path} {number}'\naccount = '{path}'\n{kind}"
        for path in paths
        for number, kind in enumerate(kinds)
    )


def nginx(cache: Path, folder: Path, port: int, provider: int) -> list[str]:
    program = install.nginx(cache)
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "nginx.conf").write_text(
        f"""daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream provider {{ server 127.0.0.1:{provider}; keepalive 4096; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    )
    if os.geteuid() == 0:
        text = (folder / "nginx.conf").read_text()
        (folder / "nginx.conf").write_text(f"user root; {text}")
    return [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf")]


def go(cache: Path, folder: Path, port: int, provider: int) -> list[str]:
    return ["env", "GOMAXPROCS=1", str(install.go_proxy(cache)), str(port), str(provider)]


def litellm(cache: Path, folder: Path, port: int, provider: int) -> list[str]:
    program = install.litellm(cache)
    base = f"http://127.0.0.1:{provider}/v1"
    model = {"model": "openai/gpt-4o", "api_base": base, "api_key": "sk"}
    config = {
        "model_list": [{"model_name": "gpt-4o", "litellm_params": model}],
        # It has no keys here, and listens on loopback only; without this it would not start.
        "general_settings": {"dangerously_permit_weak_or_unset_master_key": True},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    options = ["--config", str(folder / "config.yaml"), "--host", "127.0.0.1", "--num_workers", "1"]
    return [str(program), *options, "--port", str(port)]


def portkey(cache: Path, folder: Path, port: int, provider: int) -> list[str]:
    if shutil.which("node") is None:
        raise install.NotInstalledError("there is no node")
    return ["node", str(install.portkey(cache)), f"--port={port}", "--headless"]


SUBJECTS = (
    Subject("nginx", nginx),
    Subject("lastchunk", lastchunk, key=lambda folder: (folder / KEY).read_text()),
    Subject("Go ReverseProxy", go),
    Subject("Portkey", portkey, headers={"x-portkey-provider": "openai"}, is_slow=True),
    Subject("LiteLLM", litellm, is_slow=True),
)


@contextmanager
def running(
    subject: Subject, cache: Path, folder: Path, provider: int, core: int
) -> Iterator[Running]:
    """A subject that takes connections. Raises NotInstalledError where it does not come up."""
    port = _free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = subject.command(cache, folder, port, provider)
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=said,
            stderr=said,
            start_new_session=True,
            env=os.environ | {"LITELLM_LOG": "ERROR", "DO_NOT_TRACK": "1"},
        )
    try:
        _wait_for(port, process, folder / "said")
        yield Running(subject, port, provider, process.pid, subject.key(folder))
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes], said: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.1)
        if process.poll() is not None:
            break
    lines = said.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    raise install.NotInstalledError(f"does not start: {lines[-1]}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _tree(int(child))
    return found


def _stat(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text()
