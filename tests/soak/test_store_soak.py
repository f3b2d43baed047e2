"""Writers, collectors and compactions on one store, killed again and again: nothing acknowledged is lost, no value is gone."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stepwell.kernel_runtime.store.store import open_store

ROOT = Path(__file__).parents[2]
KILLS = 150
WRITER = """
import random, sys
import numpy as np
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.store import open_store
from tests.store import rows
store, name = open_store(sys.argv[1]), sys.argv[2]
chance = random.Random(name)
number = 0
while True:
    key = f"{name}-{number}"
    rows.record(store, rows.made(store, key, np.full(20_000, chance.randrange(6)), run_id=key)).wait()
    print(key, flush=True)
    if number % 3 == 0:
        housekeeping.forget(store, key)
        print(f"gone {key}", flush=True)
    number += 1
"""
COLLECTOR = """
import random, sys
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.store import open_store
store = open_store(sys.argv[1])
while True:
    housekeeping.collect(store, grace=0, compact=random.random() < 0.3)
"""


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_kills_of_writers_and_collectors_lose_nothing(tmp_path):
    directory = tmp_path / "store"
    open_store(directory).close()
    chance = random.Random(7)
    acknowledged, gone = set(), set()

    def start(program, *arguments):
        return subprocess.Popen(
            [sys.executable, "-c", program, str(directory), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )

    for kill in range(KILLS):
        processes = [start(WRITER, f"w{kill}"), start(COLLECTOR)]
        time.sleep(1.0 + chance.random() * 1.5)
        for process in processes:
            process.kill()
        for process in processes:
            for line in process.communicate()[0].splitlines():
                word, _, key = line.rpartition(" ")
                (gone if word else acknowledged).add(key)
    store = open_store(directory)
    # A writer may be killed after it forgot a key and before it said so.
    missing = acknowledged - gone - set(store.keys())
    assert all(int(key.rpartition("-")[2]) % 3 == 0 for key in missing), missing
    assert len(missing) <= KILLS
    for key in store.keys():  # noqa: SIM118 - a store is no dict
        value = store.current(key)[0].materialization.value
        assert len(store.get(value, key=key)) == 20_000
    store.close()
