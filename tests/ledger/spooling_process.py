"""Forks workers that write into one ledger, so that each kill costs no start of Python.

    python spooling_process.py URL SPOOL

Reads commands from stdin, one a line:
    start NAME SECONDS   a worker that opens and settles calls until it is killed; answers its pid
    wait PID             waits for a worker; answers its exit status

A worker prints the id of each call whose reservation's, and `=` and id, whose settlement's future
was done before the line was printed.
"""

import os
import sys
import threading
import time
from pathlib import Path

from ledger_facts import NOON, Stopwatch, make_call, make_settlement
from outages import options

from lastchunk.ledger import Ledger


def work(url: str, spool: str, name: str, seconds: float, said: int) -> None:
    ledger = Ledger.open(url, clock=Stopwatch(), spool=options(Path(spool)))
    ends = time.monotonic() + seconds

    def stream(number: int) -> None:
        count = 0
        while time.monotonic() < ends:
            count += 1
            call = make_call(f"call_{name}_{number}_{count:06}", account=f"team/{number}")
            ledger.reserve(call).result()
            os.write(said, f"{call.call_id}\n".encode())
            settled = ledger.settle(call, make_settlement(call), NOON)
            if count % 3:
                settled.result()
                os.write(said, f"={call.call_id}\n".encode())
            time.sleep(0.002)

    threads = [threading.Thread(target=stream, args=(n,), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()


def main(url: str, spool: str, said: str) -> None:
    out = os.open(said, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "wait":
            print(os.waitpid(int(arguments[0]), 0)[1], flush=True)
            continue
        pid = os.fork()
        if pid == 0:
            work(url, spool, arguments[0], float(arguments[1]), out)
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:4])
