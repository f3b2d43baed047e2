"""Many processes on one store for long: random kills among writers, readers among busy ones, claims in a race."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from test_claims import race
from test_processes import recorded, start_busy, turns_waited

from stepwell.kernel_runtime.store.store import open_store

__all__ = ["start_busy"]

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
ROOT = Path(__file__).resolve().parents[2]
WRITER = ROOT / "tests" / "faults" / "writer.py"


@pytest.fixture
def start():
    """Start Python processes on a program or a script; whatever still runs at the end is killed."""
    started = []

    def start(program, *arguments):
        how = [str(program)] if isinstance(program, Path) else ["-c", program]
        process = subprocess.Popen(
            [sys.executable, *how, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_eight_writers_of_which_some_are_killed_lose_nothing(tmp_path, start):
    directory = tmp_path / "store"
    chance = random.Random(11)
    acknowledged = set()
    for turn in range(25):
        writers = [start(WRITER, directory, f"w{turn}_{number}", 12, 4) for number in range(8)]
        written = []
        for doomed in chance.sample(writers, 3):
            written += [doomed.stdout.readline() for _ in range(chance.randrange(1, 8))]
            doomed.kill()
        for writer in writers:
            out, err = writer.communicate(timeout=600)
            assert "Error" not in err, err
            # The last line may have been cut off by the kill: then it was not acknowledged.
            written.append(out[: out.rfind("\n") + 1])
        acknowledged.update("".join(written).split())
    acknowledged.discard("begun")
    store = open_store(directory)
    assert acknowledged <= recorded(store)
    store.close()


def test_a_hundred_readings_among_eight_busy_writers(tmp_path, start_busy):
    turns = start_busy(8)
    store = open_store(tmp_path / "store")
    waited = turns_waited(store, turns, 100)
    print(sorted(waited))
    assert max(waited) <= 40, waited
    store.close()


def test_eight_processes_race_for_one_claim(tmp_path, start):
    race(start, tmp_path, 8, 3000)
