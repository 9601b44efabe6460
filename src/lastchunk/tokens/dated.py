"""How OpenAI counted at other times: one table of what was added, and when."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime


def _day(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Period:
    """From `since_ms` to before `until_ms`, Unix milliseconds; None: without an end."""

    since_ms: int | None
    until_ms: int | None

    def holds(self, at_ms: int | None) -> bool:
        """Whether a call of that time falls into it; a time that is not known is today."""
        if at_ms is None:
            return self.until_ms is None
        began = self.since_ms is None or at_ms >= self.since_ms
        return began and (self.until_ms is None or at_ms < self.until_ms)


END_TOKEN = Period(_day(2025, 1, 6), _day(2025, 5, 17))
"""Chat answers of models that do not reason: the end of turn was billed, on OpenAI's own hosts.

Recordings: all 22 of 2025-01-04 and before are without it, all 190 of 2025-01-10 to 2025-05-14 have
it (but some that a stop sequence ended), all of 2025-05-20 and after are without.
"""

AZURE_END_TOKEN = Period(_day(2025, 6, 1), None)
"""The same on Azure, later: no recording up to 2025-04-11 has it, all of 2026 do."""

RESPONSES_PREAMBLE = Period(None, _day(2025, 4, 1))
"""Responses in their first weeks had hidden instructions: 18 tokens on gpt-4o, and with tools a
second namespace for parallel calls. Recordings of 2025-03-10 to 2025-03-28 have them, 2025-04-07 on
has none."""

PREAMBLE_TOKENS = 18
PARALLEL_NAMESPACE_TOKENS = 198
PARALLEL_NAMESPACE_TOKENS_BEHIND_SYSTEM = 193

ESCAPED_RESULTS = Period(None, _day(2026, 3, 1))
"""Results of parallel calls: characters beyond ASCII were written as JSON escapes. Recordings up to
2026-02 have them, those of 2026-03 and 2026-04 have none; they are of different models, too."""
