"""Workers that are killed at any moment, and what must hold after each kill; used by the suite and by ``tests/soak``."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from stepwell.kernel_runtime.store.doctor.contents import check_catalog, check_files
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.store import open_store

ROOT = Path(__file__).parents[2]


@contextlib.contextmanager
def nursery():
    """Give a process from which workers are forked; it costs seconds, they do not."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("nursery.py"))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=240)


class Killing:
    """A store, its workers, and what they were told is done."""

    def __init__(self, folder, seed, nursery):
        self.store = folder / "store"
        self.folder = folder
        self.chance = random.Random(seed)
        self.kills = 0
        self.checked = set()
        self._read = {}
        self._names = 0
        self._running = set()
        self._nursery = nursery

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def start(self, *, kind="record", point=""):
        """Fork a worker; return its process id and the file of what it was told."""
        self._names += 1
        out = self.folder / f"w{self._names}.out"
        asked = {"store": str(self.store), "kind": kind, "name": f"w{self._names}", "out": str(out), "point": point}
        asked["key"] = os.environ["STEPWELL_KEY_FILE"]
        self._nursery.stdin.write(json.dumps(asked) + "\n")
        self._nursery.stdin.flush()
        process = int(self._nursery.stdout.readline())
        self._running.add(process)
        return process, out

    def kill(self, worker):
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker[0], signal.SIGKILL)
        self.gone(worker)

    def gone(self, worker, *, wanting=False):
        """Wait until a worker is no more; one that kills itself may need somebody who wants its lease."""
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                os.kill(worker[0], 0)
            except ProcessLookupError:
                self.kills += 1
                self._running.discard(worker[0])
                return
            if wanting:
                self.check()
            time.sleep(0.001)
        raise AssertionError("a worker that was to be killed lives")

    def acknowledged(self):
        """Return what was acknowledged since this was asked last."""
        found = []
        for out in self.folder.glob("*.out"):
            text = out.read_text()
            whole = text[: text.rfind("\n") + 1]
            found += whole[self._read.get(out, 0) :].split()
            self._read[out] = len(whole)
        assert not list(self.folder.glob("*.error")), [path.read_text() for path in self.folder.glob("*.error")]
        return found

    def check(self):
        """Open the store, and look whether every acknowledged row is there and its value right."""
        keys = self.acknowledged()
        store = open_store(self.store)
        snapshot = store.snapshot(keys, [], [])
        for key in keys:
            (current,) = snapshot.current[key]
            found, expected = store.get(current.materialization.value, key=key), value_of(key)
            assert type(found) is type(expected)
            assert np.array_equal(found, expected) if isinstance(found, np.ndarray) else found == expected, key
        store.close()
        self.checked.update(keys)
        return keys

    def check_all(self):
        """Look whether nothing half-written is believed: every row, every file, and all that was ever acknowledged."""
        catalog = check_catalog(Folder(self.store))
        files = list(check_files(Folder(self.store)))
        assert [file for file in files if file.state != "whole"] == []
        assert set(catalog.values) <= {file.name for file in files}
        store = open_store(self.store)
        assert self.checked <= set(store.keys())
        store.close()

    def random_kills(self, count, *, workers=3):
        """Keep some workers busy and kill one after the other at random moments."""
        kinds = ["record", "record", "compute"]
        running = [self.start(kind=kinds[index % 3]) for index in range(workers)]
        for number in range(count):
            worker = running.pop(self.chance.randrange(len(running)))
            time.sleep(self.chance.random() * self.chance.choice([0.02, 0.2, 0.6]))
            self.kill(worker)
            self.check()
            running.append(self.start(kind=kinds[number % 3]))
        for worker in running:
            self.kill(worker)
        self.check()
        self.check_all()


def value_of(key):
    """Return the value that a worker gave a key."""
    number = int(key.rpartition("_")[2])
    return np.full(10_000 + number % 5 * 1000, number) if number % 3 == 0 else [key, number]
