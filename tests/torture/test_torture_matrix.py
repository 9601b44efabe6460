"""The matrix's tables are whole, and what is drawn from them can be drawn again."""

from collections.abc import Iterator

import pytest

from lastchunk.errors import SettingsError
from lastchunk.torture.faults import plan_call
from lastchunk.torture.judge import Broken, Promise, Verdict
from lastchunk.torture.matrix import (
    Cell,
    Door,
    Fault,
    Moment,
    Store,
    all_cells,
    cell_named,
    expected,
    is_applicable,
)
from lastchunk.torture.page import as_page
from lastchunk.torture.result import Result
from lastchunk.torture.runner import Run, groups_of
from lastchunk.torture.selection import read_filters, select
from lastchunk.torture.text import as_text
from lastchunk.wire.dialect import Dialect

EVERY = tuple(Store)


def test_every_combination_has_an_outcome_or_a_reason() -> None:
    cells = list(all_cells())
    assert len(cells) == len(set(cells)) == len(Fault) * 3 * 6 * 3 * 2
    for cell in cells:
        outcomes = expected(cell)
        assert outcomes, cell
        assert cell_named(cell.name) == cell


def test_every_fault_is_played_in_every_dialect_through_every_door() -> None:
    played = {(c.fault, c.dialect, c.door, c.ledger) for c in all_cells() if is_applicable(c)}
    assert len(played) == len(Fault) * len(Dialect) * len(Door) * len(Store)


def test_a_cell_is_replayed_alone_by_its_selector() -> None:
    for cell in filter(is_applicable, all_cells()):
        assert select(read_filters([cell.selector]), EVERY, None, 0) == [cell]


def test_filters_of_one_axis_add_and_of_several_cut() -> None:
    filters = read_filters(["fault=garbage,fault=sigkill", "door=sync"])
    found = select(filters, EVERY, None, 0)
    assert {cell.fault for cell in found} == {Fault.GARBAGE, Fault.SIGKILL}
    assert {cell.door for cell in found} == {Door.SYNC}


@pytest.mark.parametrize("only", ["colour=red", "fault=fire", "fault", "=sync"])
def test_a_filter_that_names_nothing_is_a_clear_error(only: str) -> None:
    with pytest.raises(SettingsError, match="--only"):
        read_filters([only])


def test_a_sample_is_drawn_by_its_seed() -> None:
    one, again, other = (select({}, EVERY, 30, seed) for seed in (1, 1, 2))
    assert len(one) == 30
    assert one == again != other


def test_the_same_call_comes_through_every_door_onto_every_ledger() -> None:
    for fault in Fault:
        cells = [
            Cell(fault, Dialect.CHAT, Moment.HEADERS, door, store)
            for door in Door
            for store in Store
        ]
        calls = [plan_call(cell, 1, 7) for cell in cells]
        assert len({(str(call.body), call.script, call.leave_after) for call in calls}) == 1


def test_each_call_of_a_cell_is_played_once_in_one_group() -> None:
    cells = select({}, EVERY, None, 0)
    groups = groups_of(Run(cells, seed=0, calls=2, jobs=1, postgres="postgresql://somewhere"))
    tags = [call.tag for group in groups for call in group.calls]
    assert len(tags) == len(set(tags)) == 2 * len(cells)


# What a run looks like.


def _verdicts(broken: bool) -> Iterator[Verdict]:
    fault = Broken(Promise.ENDING, 1, "completed", "lost (call_01m7ycb6p2xa1kzmcqy9sfkh7p) " * 4)
    for cell in filter(is_applicable, all_cells()):
        yield Verdict(cell, 2, ("completed",), (fault,) if broken else ())


def _result(*, broken: bool) -> Result:
    return Result(7, 2, {}, None, EVERY, None, tuple(_verdicts(broken)), 12.0, "2026-11-21 06:00")


@pytest.mark.parametrize("broken", [False, True])
def test_the_text_is_no_wider_than_eighty_columns_but_for_commands(broken: bool) -> None:
    lines = as_text(_result(broken=broken)).plain.splitlines()
    assert all(len(line) <= 80 for line in lines if "--only" not in line)
    grids = [line for line in lines if any(line.startswith(f"{fault} ") for fault in Fault)]
    assert len(grids) == len(Door) * len(Fault)


def test_a_broken_cell_is_explained_and_can_be_replayed() -> None:
    result = _result(broken=True)
    text = as_text(result).plain
    verdict = result.broken[0]
    assert f"lastchunk torture --only {verdict.cell.selector} --seed 7" in text
    assert "expected: completed" in text
    assert "✗" in text


def test_the_page_loads_nothing_and_shows_each_broken_cell() -> None:
    result = _result(broken=True)
    page = as_page(result)
    for loaded in ("<script", "<link", "src=", "@import", "url("):
        assert loaded not in page
    for verdict in result.broken:
        assert f'id="{verdict.cell.name}"' in page
    assert "prefers-color-scheme: dark" in page
