"""A process that records steps and says which are acknowledged; run by the tests of this folder.

Usage: writer.py STORE NAME COUNT BATCH: COUNT groups (0: until killed) of BATCH steps each.
"""

import sys
import time

import numpy as np

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, Materialization
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.store.store import open_store


def main(directory, name, count, batch):
    store = open_store(directory)
    run = RunRecord(new_id(), "assets", f"/{name}.ipynb", (), "running", time.time())
    store.begin_run(run).wait()
    print("begun", flush=True)
    number = 0
    while count == 0 or number < count:
        ids = []
        for index in range(batch):
            key = f"{name}_{number}_{index}"
            # Every tenth is a file.
            value = np.full(10_000, number) if number % 10 == 0 else [name, number, index]
            stored = store.put(value, key=key, memo_key=key)
            m = Materialization(
                new_id(),
                run.run_id,
                key,
                key,
                "result",
                run.notebook,
                key,
                "c",
                stored.digest,
                stored,
                time.time(),
                0.0,
            )
            step = StepRecord(run.run_id, key, "executed", m.created, 0.0, key, (m,))
            commit = store.record_step(step, current=[Current(run.notebook, key, m)])
            ids.append(key)
        commit.wait()
        print(*ids, flush=True)
        if number % 7 == 0:
            found = store.snapshot(ids, ids, ["c"])
            assert set(found.current) == set(ids), (ids, found)
        number += 1
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
