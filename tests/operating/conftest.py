import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lastchunk.simulator import Simulator

for _folder in ("ledger", "gateway", "workers"):  # their helpers: places, gateways, fleets
    sys.path.append(str(Path(__file__).parents[1] / _folder))


@pytest.fixture(scope="session")
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty place for a ledger: a file, or a schema of its own on the server."""
    from ledger_server import empty_place

    if request.param == "sqlite":
        yield str(tmp_path / "ledger.db")
        return
    with empty_place() as place:
        yield place
