"""Spends from one budget as fast as it can, as one of several processes: for the tests.

    python reserving_process.py URL NAME CALLS CAP

Begins when a line is written to it, and prints how many calls were admitted.
"""

import random
import sys
from concurrent.futures import wait
from typing import Any

from ledger_facts import HOLD, NOON, Stopwatch, make_call, make_settlement

from lastchunk.ledger import Ledger
from lastchunk.ledger.plan import BalanceView


def main(url: str, name: str, calls: int, cap: int) -> None:
    chance = random.Random(name)

    def admit(balances: BalanceView) -> str | None:
        team = balances.under("team")
        return None if team.held + team.spent_best + HOLD <= cap else "over the cap"

    admitted = 0
    waiting = []
    with Ledger.open(url, clock=Stopwatch()) as ledger:
        sys.stdin.readline()
        for number in range(calls):
            call = make_call(f"call_{name}_{number:05}", account=f"team/{name}")
            waiting.append((call, ledger.reserve(call, admit)))
            if chance.random() < 0.3:
                admitted += settle(ledger, waiting, chance)
        admitted += settle(ledger, waiting, chance)
    print(admitted)


def settle(ledger: Ledger, waiting: list[Any], chance: random.Random) -> int:
    """Settles what was admitted, each for a part of its hold.

    It waits: a transaction writes its reservations first, so that only without resolutions in it
    the order of the entries is the order of the decisions.
    """
    admitted = [call for call, future in waiting if future.result(60) is None]
    settled = [
        ledger.settle(call, make_settlement(call, chance.randrange(HOLD)), NOON)
        for call in admitted
    ]
    wait(settled)
    waiting.clear()
    return len(admitted)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
