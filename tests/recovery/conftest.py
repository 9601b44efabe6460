from collections.abc import Iterator
from pathlib import Path

import pytest
from killing import Place

from lastchunk.simulator import Simulator


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Simulator() as sim:
        made = Place(sim, tmp_path)
        yield made
        made.close()
