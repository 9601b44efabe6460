"""Runs the tests that failed last once more, one after the other: `make test-again`.

Many tests race real processes, sockets and timers on a machine whose cores are shared with others.
What fails there by accident passes alone; what is broken fails again. It says which tests needed a
second run: one that is named again and again is a defect. More than a few failures are no accident.
"""

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
"""More of them are not run again."""

FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main() -> int:
    failed = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if not 0 < len(failed) <= MOST:
        print(f"{len(failed)} tests failed: none is run again", file=sys.stderr)
        return 1
    done = subprocess.run([sys.executable, "-m", "pytest", *failed], check=False)
    if done.returncode == 0:
        print("unsteady, passed alone:", *failed, sep="\n  ")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
