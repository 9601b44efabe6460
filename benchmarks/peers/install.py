"""The peers, each in a folder of its own below one cache; nothing of the system is changed.

A peer that cannot be installed is told as that, and the others are measured all the same.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

LITELLM = "1.109.1"
PORTKEY = "1.15.2"
HONO_NODE_SERVER = "1.13.8"
"""What Portkey gets by itself answers streams with 500."""
GO_PACKAGE = "golang-1.19"
INSTALL_SECONDS = 900


class NotInstalledError(Exception):
    """Why a peer is not there, in one line."""


def nginx(cache: Path) -> Path:
    """The program of Debian's package."""
    program = cache / "debian" / "usr/sbin/nginx"
    if not program.exists():
        _unpack(cache, "nginx")
    return program


def go_proxy(cache: Path) -> Path:
    """Go's reverse proxy, built with Debian's Go."""
    program = cache / "go" / "reverse_proxy"
    if not program.exists():
        root = cache / "debian" / "usr/lib" / GO_PACKAGE.replace("golang", "go")
        if not (root / "bin/go").exists():
            _unpack(cache, f"{GO_PACKAGE}-go", f"{GO_PACKAGE}-src")
        source = Path(__file__).with_name("reverse_proxy.go")
        environment = {
            "GOROOT": str(root),
            "GOCACHE": str(cache / "go" / "cache"),
            "GO111MODULE": "off",
            "CGO_ENABLED": "0",
            "PATH": "/usr/bin:/bin",
        }
        command = [str(root / "bin/go"), "build", "-o", str(program), str(source)]
        _run(command, cache, environment)
    return program


def litellm(cache: Path) -> Path:
    """The proxy's program in an environment of its own."""
    folder = cache / "litellm"
    program, pip = folder / "bin/litellm", [str(folder / "bin/python"), "-m", "pip", "-q"]
    if not (folder / ".ready").exists():
        _run([sys.executable, "-m", "venv", str(folder)], cache)
        try:
            _run([*pip, "install", f"litellm[proxy]=={LITELLM}"], cache)
        except NotInstalledError:  # its pins may be newer than what an index has
            _run([*pip, "install", "--no-deps", f"litellm=={LITELLM}"], cache)
            _run([*pip, "install", *_needs(folder)], cache)
        (folder / ".ready").touch()
    return program


def portkey(cache: Path) -> Path:
    """The gateway's script, for node."""
    folder = cache / "portkey"
    script = folder / "node_modules/@portkey-ai/gateway/build/start-server.js"
    if not script.exists():
        folder.mkdir(parents=True, exist_ok=True)
        package = {
            "private": True,
            "dependencies": {"@portkey-ai/gateway": PORTKEY},
            "overrides": {"@hono/node-server": HONO_NODE_SERVER},
        }
        (folder / "package.json").write_text(json.dumps(package))
        _run(["npm", "install", "--no-audit", "--no-fund", "--silent"], folder)
    return script


def _needs(folder: Path) -> list[str]:
    """The names of what LiteLLM's proxy needs, without their versions."""
    (site,) = folder.glob("lib/python*/site-packages")
    (found,) = metadata.distributions(name="litellm", path=[str(site)])
    names = []
    for line in found.requires or ():
        extras = re.findall(r"extra == ['\"]([^'\"]+)", line)
        name = re.match(r"[\w.-]+(\[[^\]]*\])?", line)
        if name and (not extras or "proxy" in extras):
            names.append(name.group(0))
    return names


def _unpack(cache: Path, *packages: str) -> None:
    """Debian packages as files below the cache: downloaded by apt, not installed."""
    if shutil.which("apt-get") is None:
        raise NotInstalledError("this is no Debian: there is no apt-get")
    folder = cache / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "download", *packages], folder)
    for package in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(package), str(cache / "debian")], folder)


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            command,
            cwd=folder,
            env=environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout or "").strip().splitlines() or ["it said nothing"]
        raise NotInstalledError(f"{command[0]}: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"{command[0]}: {error}") from error
