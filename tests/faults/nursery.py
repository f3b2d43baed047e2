"""A process from which workers are forked, so that one costs milliseconds: it has imported everything, and opened no store.

Standard input: one JSON object a line, ``{"store", "kind", "name", "out", "point", "key"}``; standard output: the worker's process id. A worker
appends the names of what is acknowledged to ``out`` until it is killed. With a ``point`` it kills itself there.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import duckdb  # noqa: F401 - imported before the forks
import numpy as np

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.session import Session  # noqa: F401 - imported before the forks
from stepwell.kernel_runtime.store.catalog.attachment import Attachment
from stepwell.kernel_runtime.store.catalog.lease import Lease
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.store import ValueStore, open_store


def value_of(key):
    """Return the value that belongs to a key: every third is a file."""
    number = int(key.rpartition("_")[2])
    return np.full(10_000 + number % 5 * 1000, number) if number % 3 == 0 else [key, number]


def record(store, name, told):
    """Record groups of steps; tell each when its commit is done."""
    run = RunRecord(new_id(), "assets", f"/{name}.ipynb", (), "running", time.time())
    store.begin_run(run).wait()
    number = 0
    while True:
        keys = []
        for _ in range(1 + number % 4):
            key = f"{name}_{number}"
            stored = store.put(value_of(key), key=key, memo_key=key)
            m = Materialization(
                new_id(), run.run_id, key, key, "result", run.notebook, key, "c", stored.digest, stored, time.time(), 0.0
            )  # fmt: skip
            step = StepRecord(run.run_id, key, "executed", m.created, 0.0, key, (m,))
            commit = store.record_step(step, current=[Current(run.notebook, key, m)])
            keys.append(key)
            number += 1
        commit.wait()
        told(keys)


def compute(directory, name, told):
    """Materialize assets; tell each that was reported done."""
    number = 0
    while True:
        keys = [f"{name}_{number + index}" for index in range(3)]
        made = [asset(name=key)(lambda key=key: value_of(key)) for key in keys]
        result = stepwell.materialize(made, store=directory)
        told([step.key for step in result.steps if step.status in ("executed", "reused")])
        number += 3


def kill(*_given, **_named):
    os.kill(os.getpid(), signal.SIGKILL)


def soon(chance, most):
    threading.Thread(target=lambda: (time.sleep(chance.random() * most), kill())).start()


def wrap(owner, name, *, before=None, after=None, at=1):
    """Call a function before or after the ``at``-th call of a method."""
    real = getattr(owner, name)
    calls = []

    def wrapped(*given, **named):
        calls.append(1)
        if before is not None and len(calls) == at:
            before()
        found = real(*given, **named)
        if after is not None and len(calls) == at:
            after()
        return found

    setattr(owner, name, wrapped)


def renames(part, *, before=None, after=None):
    """Call a function before or after something in the store is renamed to a name with ``part`` in it."""
    real = Folder.rename

    def renamed(folder, old, new):
        hit = part in new
        if hit and before is not None:
            before()
        real(folder, old, new)
        if hit and after is not None:
            after()

    Folder.rename = renamed


def arm(point, chance):
    """Arrange to be killed at a point."""
    points = {
        "before an object's rename": lambda: renames("objects/", before=kill),
        "after an object's rename": lambda: renames("objects/", after=kill),
        "while the catalog is made": lambda: wrap(Attachment, "_create", before=lambda: soon(chance, 0.03)),
        "before the catalog's rename": lambda: renames("catalog.duckdb", before=kill),
        "after the catalog's rename": lambda: renames("catalog.duckdb", after=kill),
        "while a log is replayed": lambda: wrap(Attachment, "_attach_file", before=lambda: soon(chance, 0.004)),
        "between look and replay": lambda: wrap(Attachment, "_attach_file", after=kill),
        "inside a transaction": lambda: wrap(Attachment, "count", after=kill, at=3),
        "before the seal": lambda: wrap(Attachment, "acknowledge", before=kill, at=3),
        "after the seal": lambda: wrap(Attachment, "acknowledge", after=kill, at=3),
        "before the checkpoint": lambda: wrap(Attachment, "detach", before=kill),
        "while it checkpoints": lambda: wrap(Attachment, "detach", before=lambda: soon(chance, 0.02)),
        "after the checkpoint": lambda: wrap(Lease, "release", before=kill),
        "after a put": lambda: wrap(ValueStore, "put", after=kill, at=4),
    }
    points[point]()


def work(asked):
    os.environ["STEPWELL_KEY_FILE"] = asked["key"]
    descriptor = os.open(asked["out"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def told(keys):
        # A line is whole or it is not acknowledged.
        os.write(descriptor, (" ".join(keys) + "\n").encode())

    if asked["point"]:
        arm(asked["point"], random.Random(asked["name"]))
    if asked["kind"] == "compute":
        compute(asked["store"], asked["name"], told)
    else:
        record(open_store(asked["store"]), asked["name"], told)


def main():
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                work(json.loads(line))
            except BaseException as error:
                with Path(json.loads(line)["out"] + ".error").open("a") as file:
                    file.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        print(child, flush=True)


if __name__ == "__main__":
    main()
