"""A cancellation held back: nothing is broken by it, it is not lost, and it waits no longer."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import anyio
import pytest
from in_process import in_a_loop

from lastchunk.instrument.held_back import HeldBack

LONG = 30.0
SHORT = 0.05


def yes() -> bool:
    return True


def no() -> bool:
    return False


async def started(steps: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    task = asyncio.create_task(steps)
    await asyncio.sleep(0)
    return task


async def one_after_the_other(gates: list[asyncio.Event], passed: list[int]) -> int:
    for number, gate in enumerate(gates):
        await gate.wait()
        await asyncio.sleep(0)
        passed.append(number)
    return len(passed)


@in_a_loop
async def test_what_is_not_cancelled_gives_its_result() -> None:
    gate = asyncio.Event()
    asyncio.get_running_loop().call_soon(gate.set)
    assert await HeldBack(one_after_the_other([gate], []), LONG, yes) == 1


@in_a_loop
async def test_an_error_of_the_steps_is_raised() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise LookupError

    with pytest.raises(LookupError):
        await HeldBack(fail(), LONG, yes)


@pytest.mark.parametrize("times", [1, 5])
@in_a_loop
async def test_the_cancelled_steps_are_run_to_their_end(times: int) -> None:
    gates, passed = [asyncio.Event(), asyncio.Event()], list[int]()

    async def wait() -> None:
        await HeldBack(one_after_the_other(gates, passed), LONG, yes)

    task = await started(wait())
    for _ in range(times):
        task.cancel("by the test")
        await asyncio.sleep(0)
    for gate in gates:
        gate.set()
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError, match="by the test"):
        await task
    assert passed == [0, 1]


@in_a_loop
async def test_a_cancellation_that_is_not_held_breaks_the_steps() -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            seen.append(str(error))
            raise

    async def wait_held() -> None:
        await HeldBack(wait(), LONG, no)

    task = await started(wait_held())
    task.cancel("by the test")
    with pytest.raises(asyncio.CancelledError, match="by the test"):
        await task
    assert seen == ["by the test"]


@in_a_loop
async def test_a_library_that_ends_its_own_wait_goes_on() -> None:
    async def give_up() -> str:
        with anyio.move_on_after(SHORT):
            await asyncio.Event().wait()
        return "given up"

    assert await HeldBack(give_up(), LONG, no) == "given up"


@in_a_loop
async def test_steps_that_take_too_long_are_cancelled_and_then_their_task_is() -> None:
    async def wait() -> None:
        await HeldBack(asyncio.Event().wait(), SHORT, yes)

    task = await started(wait())
    at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert SHORT / 2 < time.monotonic() - at < LONG / 2


@in_a_loop
async def test_steps_that_take_too_long_by_themselves_time_out() -> None:
    with pytest.raises(TimeoutError):
        await HeldBack(asyncio.Event().wait(), SHORT)


@in_a_loop
async def test_a_scope_that_cancels_again_and_again_swallows_what_is_its_own() -> None:
    passed: list[int] = []
    gate = asyncio.Event()
    with anyio.CancelScope() as scope:
        scope.cancel()
        asyncio.get_running_loop().call_later(SHORT, gate.set)
        await HeldBack(one_after_the_other([gate], passed), LONG, yes)
    assert scope.cancelled_caught
    assert passed == [0]
    await asyncio.sleep(0)
