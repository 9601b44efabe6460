"""What `migrate-ledger` copied, as a table."""

from __future__ import annotations

from lastchunk.ledger.copying import Copied
from lastchunk.reports.table import Column, Kind, Table


def copied_table(copied: Copied) -> Table:
    """One line a table: its rows, all of which are the same in both, and those written now."""
    return Table(
        name="copied",
        title="",
        columns=(
            Column("table", "table"),
            Column("rows", "rows, the same in both", Kind.NUMBER),
            Column("written", "written now", Kind.NUMBER),
        ),
        rows=tuple((table.name, table.rows, table.written) for table in copied.tables),
    )
