"""Bodies as parameters: recordings where the corpus is, rendered ones everywhere."""

from __future__ import annotations

import pytest
from cut_bodies import SEED, corpus, recorded, rendered, some

RECORDED_IN_A_RUN = 70
RENDERED_IN_A_RUN = 60
RENDERED_IN_ALL = 400


def pytest_report_header() -> str:
    return f"cuts: seed {SEED} (LASTCHUNK_TEST_SEED), corpus {corpus() or 'absent'}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "recording" in metafunc.fixturenames:
        bodies = some(recorded(), RECORDED_IN_A_RUN)
        why = "no recordings: set LASTCHUNK_CORPUS to their folder"
        absent = [pytest.param(None, marks=pytest.mark.skip(reason=why), id="absent")]
        marked = [pytest.param(body, marks=pytest.mark.corpus, id=body.id) for body in bodies]
        metafunc.parametrize("recording", marked or absent)
    if "script_body" in metafunc.fixturenames:
        bodies = some(rendered(RENDERED_IN_ALL), RENDERED_IN_A_RUN)
        metafunc.parametrize("script_body", bodies, ids=lambda body: body.id)
