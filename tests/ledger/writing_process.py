"""Writes into one ledger until it is done or killed, and says what was done: for the tests.

    python writing_process.py URL NAME CALLS

Each line it prints is the id of a call whose reservation's, or `=` and id, whose settlement's
future was done before the line was printed.
"""

import os
import sys

from ledger_facts import NOON, Stopwatch, make_call, make_settlement

from lastchunk.ledger import Ledger


def main(url: str, name: str, count: int) -> None:
    ledger = Ledger.open(url, clock=Stopwatch())
    for number in range(count):
        call = make_call(f"call_{name}_{number:06}", account=f"team/{number % 3}")
        reserved = ledger.reserve(call)
        if number % 5 == 0:
            reserved.result()
        settled = ledger.settle(call, make_settlement(call), NOON)
        if number % 7 == 0:
            settled.result()
            os.write(1, f"={call.call_id}\n".encode())
        else:
            reserved.result()
            os.write(1, f"{call.call_id}\n".encode())
    ledger.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
