"""Every endpoint."""

from lastchunk.admin.calls import CALLS
from lastchunk.admin.house import HOUSE
from lastchunk.admin.keys import KEYS
from lastchunk.admin.limits import LIMITS
from lastchunk.admin.operation import Operation
from lastchunk.admin.reports import REPORTS

OPERATIONS: tuple[Operation, ...] = (*KEYS, *LIMITS, *CALLS, *REPORTS, *HOUSE)
