from collections.abc import Iterator

import pytest

from lastchunk.simulator import Simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running
