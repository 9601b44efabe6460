"""Two versions of lastchunk on one ledger: the other one is this code with one more migration."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from ledger_facts import NOON, Stopwatch, make_call, make_settlement

import lastchunk
from lastchunk.errors import LedgerUnavailable
from lastchunk.ledger import Ledger, Reader, verify
from lastchunk.ledger.database import parse_url, writing_engine
from lastchunk.ledger.tables import SCHEMA_VERSION

NEWER = "9000"
HERE = Path(__file__).parent

MIGRATION = f"""
import sqlalchemy as sa
from alembic import op
revision = "{NEWER}"
down_revision = "{SCHEMA_VERSION}"
{{says}}
def upgrade():
    op.create_table("receipts", sa.Column("call_id", sa.Text, primary_key=True))
"""

OPEN_AND_WRITE = """
import sys
from ledger_facts import *
from lastchunk.ledger import Ledger
with Ledger.open(sys.argv[1], clock=Stopwatch()) as ledger:
    call = make_call("call_of_the_newer")
    ledger.reserve(call)
    ledger.settle(call, make_settlement(call), NOON).result()
"""


class Newer:
    """A later lastchunk, in processes of its own."""

    def __init__(self, folder: Path, says: str) -> None:
        self._path = folder / f"newer{len(says)}"
        package = self._path / "lastchunk"
        shutil.copytree(Path(lastchunk.__file__).parent, package)
        tables = package / "ledger" / "tables.py"
        tables.write_text(
            tables.read_text().replace(
                f'SCHEMA_VERSION = "{SCHEMA_VERSION}"', f'SCHEMA_VERSION = "{NEWER}"'
            )
        )
        step = package / "ledger" / "migrations" / "versions" / f"v{NEWER}_receipts.py"
        step.write_text(MIGRATION.format(says=says))

    def opens(self, url: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join((str(self._path), str(HERE)))
        return subprocess.run(
            [sys.executable, "-c", OPEN_AND_WRITE, url],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
        )


def tables_of(url: str) -> set[str]:
    engine = writing_engine(parse_url(url))
    with engine.connect() as connection:
        return set(sa.inspect(connection).get_table_names())


def test_a_newer_one_upgrades_a_ledger_at_rest_and_the_older_is_told(
    url: str, clock: Stopwatch, tmp_path: Path
) -> None:
    call = make_call()
    with Ledger.open(url, clock=clock) as ledger:
        ledger.reserve(call)
        ledger.settle(call, make_settlement(call), NOON).result()
    upgraded = Newer(tmp_path, says="").opens(url)
    assert upgraded.returncode == 0, upgraded.stderr
    assert "receipts" in tables_of(url)
    for open_it in (lambda: Ledger.open(url, clock=clock), lambda: Reader.open(url)):
        with pytest.raises(LedgerUnavailable, match=rf"newer lastchunk \(schema {NEWER}.*upgrade"):
            open_it()


def test_a_newer_one_does_not_upgrade_under_an_older_that_runs(
    url: str, clock: Stopwatch, tmp_path: Path
) -> None:
    with Ledger.open(url, clock=clock) as ledger:
        refused = Newer(tmp_path, says="").opens(url)
        assert refused.returncode != 0
        said = refused.stderr.strip().splitlines()[-1]
        assert "LedgerUnavailable" in said
        assert f"older schema {SCHEMA_VERSION} (here {NEWER})" in said
        assert f"open in process {os.getpid()} on " in said
        assert "stop what runs with the older lastchunk, then start this again" in said
        call = make_call()
        ledger.reserve(call)
        assert ledger.settle(call, make_settlement(call), NOON).result()
    assert "receipts" not in tables_of(url)
    assert verify(url).is_clean


def test_a_step_that_lets_the_older_go_on_is_taken_under_it(
    url: str, clock: Stopwatch, tmp_path: Path
) -> None:
    with Ledger.open(url, clock=clock) as ledger:
        upgraded = Newer(tmp_path, says="OLDER_MAY_GO_ON = True").opens(url)
        assert upgraded.returncode == 0, upgraded.stderr
        call = make_call()
        ledger.reserve(call)
        assert ledger.settle(call, make_settlement(call), NOON).result()
    with pytest.raises(LedgerUnavailable, match="newer lastchunk"):
        Ledger.open(url, clock=clock)
