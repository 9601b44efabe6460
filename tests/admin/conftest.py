import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "ledger"))

from admin_stage import Admin, admin_beside
from ledger_server import empty_place


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def either(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """An empty place for a ledger, on each database."""
    if request.param == "sqlite":
        yield str(tmp_path_factory.mktemp("admin") / "ledger.db")
        return
    with empty_place() as place:
        yield place


@pytest.fixture(scope="module")
def admin(either: str) -> Iterator[Admin]:
    """A gateway with an admin API, on a ledger that has some calls; on each database."""
    with admin_beside(either) as running:
        running.write_calls(12)
        yield running


@pytest.fixture(scope="module")
def one_admin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Admin]:
    """The same on SQLite alone."""
    folder = tmp_path_factory.mktemp("admin")
    with admin_beside(str(folder / "ledger.db")) as running:
        running.write_calls(12)
        yield running
