"""Documents cannot drift: the tutorial runs, links lead somewhere, the reference is current."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_the_tutorial_runs_as_it_stands(tmp_path: Path) -> None:
    script = ["set -eu"]
    for language, code in _BLOCK.findall((ROOT / "docs/tutorial.md").read_text()):
        if language == "python":
            (tmp_path / "app.py").write_text(_with_free_ports(code))
        elif language == "sh":
            is_server = code.rstrip().endswith("&")
            script.append(code + ("sleep 2\n" if is_server else ""))
    done = _run_shell(_with_free_ports("\n".join(script)), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "ended: caller_left" in done.stdout
    assert "lost" in done.stdout
    assert "0" in done.stdout.split("discrepancies")[-1]


def test_the_readme_shows_the_main_job_in_its_first_screen() -> None:
    first_screen = (ROOT / "README.md").read_text().splitlines()[:40]
    text = "\n".join(first_screen)
    assert "lastchunk.instrument(openai.OpenAI())" in text
    assert "lastchunk serve --upstream" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in _LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), target


def test_the_reference_says_what_the_code_says() -> None:
    location = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert location is not None
    assert location.loader is not None
    generate = importlib.util.module_from_spec(location)
    location.loader.exec_module(generate)
    for name, text in generate.pages().items():
        written = (generate.REFERENCE / name).read_text(encoding="utf-8")
        assert written.endswith(text), f"{name} is out of date: run `make docs`"


_ports: dict[str, str] = {}


def _with_free_ports(text: str) -> str:
    """The documents' ports, replaced by ones that no other test uses."""
    for documented in ("8790", "8791"):
        if documented not in _ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                _ports[documented] = str(free.getsockname()[1])
        text = text.replace(documented, _ports[documented])
    return text


def _run_shell(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "COLUMNS": "80"}
    # A file, not `bash -c`: the tutorial's `pkill -f` would find the shell's own command line.
    (folder / "tutorial.sh").write_text(script)
    shell = subprocess.Popen(
        ["bash", "tutorial.sh"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with shell:
        guard = threading.Timer(80, os.killpg, (shell.pid, signal.SIGKILL))
        guard.start()
        out, errors = shell.communicate()
        guard.cancel()
    return subprocess.CompletedProcess(script, shell.returncode, out, errors)
