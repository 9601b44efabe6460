"""Several workers under load: one is killed, all are replaced, none loses or doubles a call."""

import os
import signal
import time
from pathlib import Path

from fleet import Load, fleet, until

from lastchunk import Ending
from lastchunk.simulator import Simulator

BUSIEST = """SELECT pid FROM in_flight JOIN processes USING (process_id) WHERE seen IS NOT NULL
GROUP BY pid ORDER BY count(*) DESC LIMIT 1"""


def test_a_killed_workers_calls_are_settled_by_a_living_sibling_within_seconds(
    url: str, sim: Simulator, tmp_path: Path
) -> None:
    from ledger_facts import ask

    with fleet(sim.url, url, tmp_path) as running:
        with Load(running.url, tokens=(200,)).running(12) as load:
            seen = "SELECT 1 FROM in_flight WHERE seen IS NOT NULL"
            until(lambda: len(ask(url, seen)) >= 12, "the state of 12 streams is written down")
            running.process.send_signal(signal.SIGSTOP)  # so that no successor starts, and recovers
            os.kill(ask(url, BUSIEST)[0][0], signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: load.broken, "streams of the killed worker broke")
            until(
                lambda: {r.call_id for r in running.rows() if not r.is_open} >= set(load.broken),
                "the killed worker's calls are settled",
                seconds=15,
            )
            print(f"settled after {time.monotonic() - killed:.1f} s")
            running.process.send_signal(signal.SIGCONT)
            until(lambda: "serves, as process" in running.said(), "its successor serves")
        assert running.end() == 0, running.said()
        rows = running.assert_sound()
    lost = {id_ for id_, row in rows.items() if row.settlement and row.settlement.ending == "lost"}
    assert set(load.broken) <= lost
    assert len({rows[id_].process_id for id_ in lost}) == 1
    assert load.whole
    for call_id in load.whole:
        settlement = rows[call_id].settlement
        assert settlement is not None
        assert settlement.ending is Ending.COMPLETED
    frames = [rows[id_].settlement.observation.frames for id_ in load.broken]  # type: ignore[union-attr]
    assert any(frames), "what it had written down is what it is settled from"


def test_a_rolling_restart_under_load_refuses_and_breaks_nothing(
    url: str, sim: Simulator, tmp_path: Path
) -> None:
    with fleet(sim.url, url, tmp_path) as running:
        before = set(running.pids())
        with Load(running.url).running(8) as load:
            until(lambda: len(load.whole) > 8, "calls are served")
            running.process.send_signal(signal.SIGHUP)
            until(lambda: len(set(running.pids()) - before) == 3, "three successors")
            until(lambda: not set(running.pids()) & before, "the old ones are gone")
            count = len(load.whole)
            until(lambda: len(load.whole) > count + 8, "calls are served by the new ones")
        assert running.end() == 0, running.said()
        rows = running.assert_sound()
    assert (load.refused, load.broken) == ([], [])
    assert {row.settlement.ending for row in rows.values() if row.settlement} == {Ending.COMPLETED}
    assert set(load.whole) == rows.keys()
    assert len({row.process_id for row in rows.values()}) > 3
