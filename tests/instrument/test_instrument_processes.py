"""Ways out that take the process with them, and processes made of one that meters."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import Corner, assert_cut, assert_reported

import lastchunk
from lastchunk import Ending
from lastchunk.clock import SystemClock
from lastchunk.ledger import Ledger
from lastchunk.pricing.book import PriceBook
from lastchunk.recovery import recover
from lastchunk.simulator import Script, write_script

PRELUDE = """
import asyncio, gc, multiprocessing, os, sys, threading, time
import openai
import lastchunk

base_url, ledger, tag, slow = sys.argv[1:5]
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hello"}]}
STREAMED = CHAT | {"stream": True}
OPTIONS = {"base_url": base_url, "api_key": "sk-test", "max_retries": 0}
SLOW = {"default_headers": {"x-sim-tag": tag, "x-sim": slow}}
PLAIN = {"default_headers": {"x-sim-tag": tag}}


def metered(client):
    return lastchunk.instrument(client, ledger=ledger, account=tag)


def read_some(stream):
    for _ in range(5):
        next(stream)


def open_stream(client):
    stream = client.chat.completions.create(**STREAMED)
    read_some(stream)
    return stream


def child_calls(client):
    client.chat.completions.create(**CHAT, extra_headers={"x-sim": "{}"})
    open_stream(client).close()
    assert any(thread.name == "lastchunk-grace" for thread in threading.enumerate())
"""

SLOW = Script(output_tokens=400, pacing_s=0.01)


def run(corner: Corner, tmp_path: Path, main: str, *, top: str = "", code: int = 0) -> str:
    """Run a program of its own; gives back what it said on stderr."""
    file = tmp_path / "program.py"
    body = indented(main)
    file.write_text(
        f"{PRELUDE}\n{top}\n\ndef main():\n{body}\n\nif __name__ == '__main__':\n    main()\n"
    )
    arguments = [corner.sim.base_url, corner.ledger, corner.name, write_script(SLOW)]
    command = [sys.executable, "-W", "error", str(file), *arguments]
    here = os.environ | {"PYTHONPATH": str(Path(lastchunk.__file__).parents[1])}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=tmp_path, env=here
    )
    assert done.returncode == code, done.stderr
    return done.stderr


def indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.strip("\n").splitlines())


OPEN_AT_EXIT = {
    "sync": """
client = metered(openai.OpenAI(**OPTIONS, **SLOW))
stream = open_stream(client)
""",
    "sync, kept for good": """
client = metered(openai.OpenAI(**OPTIONS, **SLOW))
sys.kept = open_stream(client)
""",
    "async": """
async def run():
    client = metered(openai.AsyncOpenAI(**OPTIONS, **SLOW))
    sys.kept = await client.chat.completions.create(**STREAMED)
    for _ in range(5):
        await anext(sys.kept)
asyncio.run(run())
""",
}


@pytest.mark.parametrize("program", OPEN_AT_EXIT.values(), ids=OPEN_AT_EXIT.keys())
def test_a_process_that_ends_with_an_open_stream(
    corner: Corner, tmp_path: Path, program: str
) -> None:
    said = run(corner, tmp_path, program)
    if "asyncio" not in program:  # whose end closes the client's own generators all at once
        assert said == ""
    assert_cut(corner.row(seconds=1), corner.billed()[0], Ending.CALLER_LEFT)


def test_a_daemon_thread_that_reads_at_the_end_dies_silently(
    corner: Corner, tmp_path: Path
) -> None:
    program = """
client = metered(openai.OpenAI(**OPTIONS, **SLOW))
def consume():
    for chunk in client.chat.completions.create(**STREAMED):
        begun.set()
begun = threading.Event()
threading.Thread(target=consume, daemon=True).start()
begun.wait()
"""
    assert run(corner, tmp_path, program) == ""
    row = corner.row(seconds=1)
    assert row.settlement is not None
    assert row.settlement.ending == Ending.CALLER_LEFT


def test_a_daemon_thread_begins_no_call_once_the_books_are_closed(
    corner: Corner, tmp_path: Path
) -> None:
    """It is stopped in a moment; what it sent before would stay open until the next start."""
    top = """
import atexit
from lastchunk.instrument import process
ends = threading.Event()
def at_the_end():
    ends.set()
    time.sleep(0.5)
atexit.unregister(process._end)
for each in (at_the_end, process._end):  # the last one runs first
    atexit.register(each)
"""
    program = """
client = metered(openai.OpenAI(**OPTIONS, **PLAIN))
client.chat.completions.create(**CHAT)
def call_at_the_end():
    ends.wait()
    client.chat.completions.create(**CHAT)
threading.Thread(target=call_at_the_end, daemon=True).start()
"""
    assert run(corner, tmp_path, program, top=top) == ""
    assert_reported(corner.row(seconds=1), corner.billed()[0])


def test_sys_exit_in_the_loop(corner: Corner, tmp_path: Path) -> None:
    program = """
for chunk in metered(openai.OpenAI(**OPTIONS, **SLOW)).chat.completions.create(**STREAMED):
    if chunk.choices[0].delta.content:
        sys.exit(3)
"""
    assert "Traceback" not in run(corner, tmp_path, program, code=3)
    assert_cut(corner.row(seconds=1), corner.billed()[0], Ending.CALLER_LEFT)


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
def test_ctrl_c_in_the_loop(corner: Corner, tmp_path: Path, asynchronous: bool) -> None:
    program = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
def interrupt():
    time.sleep(0.4)
    os.kill(os.getpid(), signal.SIGINT)
async def run():
    client = metered(openai.AsyncOpenAI(**OPTIONS, **SLOW))
    stream = await client.chat.completions.create(**STREAMED)
    threading.Thread(target=interrupt).start()
    async for chunk in stream:
        pass
def run_sync():
    stream = metered(openai.OpenAI(**OPTIONS, **SLOW)).chat.completions.create(**STREAMED)
    threading.Thread(target=interrupt).start()
    for chunk in stream:
        pass
"""
    program += "asyncio.run(run())\n" if asynchronous else "run_sync()\n"
    said = run(corner, tmp_path, program, code=-2)
    assert said.count("KeyboardInterrupt") >= 1
    assert "lastchunk.errors" not in said
    assert_cut(corner.row(seconds=1), corner.billed()[0], Ending.CALLER_LEFT)


def test_a_grace_read_under_way_at_exit_ends_well(corner: Corner, tmp_path: Path) -> None:
    program = """
script = '{"output_tokens": 6, "packet_bytes": 9, "pacing_s": 0.02}'
client = metered(openai.OpenAI(**OPTIONS, default_headers={"x-sim-tag": tag, "x-sim": script}))
for chunk in client.chat.completions.create(**STREAMED):
    if chunk.choices[0].finish_reason:
        break
"""
    run(corner, tmp_path, program)
    assert_reported(corner.row(seconds=1), corner.billed()[0])


FORKS = {
    "os.fork, _exit": """
pid = os.fork()
if pid == 0:
    child_calls(client)
    lastchunk.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
    "os.fork, sys.exit": """
pid = os.fork()
if pid == 0:
    child_calls(client)
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
""",
    "multiprocessing fork": """
process = multiprocessing.get_context("fork").Process(target=child_calls, args=(client,))
process.start()
process.join()
assert process.exitcode == 0
""",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS.keys())
def test_a_forked_child_settles_its_own_calls_and_no_others(
    corner: Corner, tmp_path: Path, fork: str
) -> None:
    """The parent's stream is open while the child lives, and is read to its end afterwards."""
    program = f"""
client = metered(openai.OpenAI(**OPTIONS, **SLOW))
stream = client.chat.completions.create(**STREAMED, extra_headers={{"x-sim": PARENT}})
read_some(stream)
{fork}
assert len(list(stream)) > 10
lastchunk.close()
"""
    parent = write_script(Script(output_tokens=100, pacing_s=0.01))
    run(corner, tmp_path, f"PARENT = {parent!r}\n{program}")
    rows = {row.call_id: row for row in corner.rows(3, seconds=2)}
    by_response = {call.response_id: call for call in corner.billed(3)}
    endings = []
    for row in rows.values():
        assert row.settlement is not None
        billed = by_response[row.settlement.observation.response_id]
        endings.append(row.settlement.ending)
        if row.settlement.ending == Ending.COMPLETED:
            assert_reported(row, billed)
        else:
            assert_cut(row, billed, Ending.CALLER_LEFT)
    assert sorted(endings) == [Ending.CALLER_LEFT, Ending.COMPLETED, Ending.COMPLETED]
    assert len({row.process_id for row in rows.values()}) == 2


def test_a_child_that_ends_while_its_parent_streams_disturbs_nothing(
    corner: Corner, tmp_path: Path
) -> None:
    """Many children inherit open streams and collect or close them; the parent reads on."""
    program = """
client = metered(openai.OpenAI(**OPTIONS, **PLAIN))
script = '{"output_tokens": 60, "pacing_s": 0.02}'
streams = [
    client.chat.completions.create(**STREAMED, extra_headers={"x-sim": script}) for _ in range(3)
]
for stream in streams:
    next(stream)
for number in range(6):
    pid = os.fork()
    if pid == 0:
        if number % 2:
            streams.clear()
            gc.collect()
        else:
            for stream in streams:
                stream.close()
        sys.exit(0)
    assert os.waitpid(pid, 0)[1] == 0
for stream in streams:
    assert list(stream)[-1].choices[0].finish_reason == "stop"
"""
    assert "Traceback" not in run(corner, tmp_path, program)
    billed = {call.response_id: call for call in corner.billed(3)}
    for row in corner.rows(3, seconds=2):
        assert row.settlement is not None
        assert_reported(row, billed[row.settlement.observation.response_id])


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_pool_of_workers_with_clients_of_their_own(
    corner: Corner, tmp_path: Path, method: str
) -> None:
    work = """
def work():
    client = metered(openai.OpenAI(**OPTIONS, **SLOW))
    child_calls(client)
    sys.kept = open_stream(client)
"""
    program = f"""
context = multiprocessing.get_context({method!r})
processes = [context.Process(target=work) for _ in range(2)]
for process in processes:
    process.start()
for process in processes:
    process.join()
    assert process.exitcode == 0
"""
    run(corner, tmp_path, program, top=work)
    endings = [row.settlement.ending for row in corner.rows(6, seconds=2) if row.settlement]
    assert endings.count(Ending.COMPLETED) == 2
    assert endings.count(Ending.CALLER_LEFT) == 4


def test_a_child_that_is_killed_is_recovered_and_its_parent_is_not(
    corner: Corner, tmp_path: Path
) -> None:
    program = """
client = metered(openai.OpenAI(**OPTIONS, **SLOW))
stream = open_stream(client)
pid = os.fork()
if pid == 0:
    kept = open_stream(client)
    os.kill(os.getpid(), 9)
os.waitpid(pid, 0)
assert len(list(stream)) > 10
"""
    run(corner, tmp_path, program)
    clock = SystemClock()
    with Ledger.open(corner.ledger, clock=clock) as ledger:
        settled = list(recover(ledger, PriceBook.load(None), clock))
    parents, childs = corner.rows(2)
    assert parents.settlement is not None
    assert parents.settlement.ending == Ending.COMPLETED
    assert childs.settlement is not None
    assert childs.settlement.ending == Ending.LOST
    # Its parent, which lives, may have been quicker than this recovery; it is settled once.
    assert {settlement.call_id for settlement in settled} <= {childs.call_id}
