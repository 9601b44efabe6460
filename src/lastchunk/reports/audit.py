"""What `verify` found, as tables."""

from __future__ import annotations

from lastchunk.ledger.audit import Verification
from lastchunk.reports.table import Column, Kind, Table


def audit_tables(found: Verification) -> list[Table]:
    """The discrepancies first, as that is what a machine wants; then how much was checked."""
    discrepancies = Table(
        name="discrepancies",
        title="" if found.is_clean else "What does not hold",
        columns=(
            Column("name", "what"),
            Column("subject", "call or account", Kind.ID),
            Column("message", "found"),
        ),
        rows=tuple((one.name, one.subject, one.message) for one in found.discrepancies),
        notes=_notes(found),
        empty="The ledger holds together: every balance is what its entries add up to.",
    )
    checked = Table(
        name="checked",
        title="",
        columns=(
            Column("entries", "entries checked", Kind.NUMBER),
            Column("calls", "calls", Kind.NUMBER),
            Column("accounts", "accounts", Kind.NUMBER),
            Column("found", "discrepancies", Kind.NUMBER),
        ),
        rows=((found.entries, found.calls, found.accounts, found.found),),
        vertical=True,
    )
    return [discrepancies, checked]


def _notes(found: Verification) -> tuple[str, ...]:
    if found.is_clean:
        return ()
    notes = []
    if (left_out := found.found - len(found.discrepancies)) > 0:
        notes.append(f"And {left_out:,} more that are not listed.")
    notes.append(
        "Keep a copy of the ledger before doing anything. Entries are never changed by lastchunk:"
        " something else wrote here, or the disk is damaged."
    )
    return tuple(notes)
