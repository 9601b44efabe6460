"""What one process knows and allows when callers leave: its rules, caps and permits."""

from __future__ import annotations

from lastchunk.leaving.departing import Caps, Departing, Permits
from lastchunk.leaving.rules import BUILT_IN, Rules
from lastchunk.wire.request import CallRequest


class LeavingHouse:
    """One for a bookkeeper: all ways in share its permits."""

    def __init__(self, rules: Rules = BUILT_IN, caps: Caps | None = None) -> None:
        self._rules = rules
        self._caps = caps or Caps()
        self._permits = Permits(self._caps.at_once)

    def follow(self, other: LeavingHouse) -> None:
        """From now on calls find the other's rules. Caps and permits stay: drains are under way."""
        self._rules = other._rules

    def departing(self, request: CallRequest, account: str) -> Departing:
        """What will become of a call by this account when its caller leaves."""
        return Departing(self._rules.rule_for(request, account), self._caps, self._permits)
