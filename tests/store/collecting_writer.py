"""A process that stores large values again and again, each recorded only some time after it was written; values repeat."""

import random
import sys
import time

import numpy as np

from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.store import open_store
from tests.store import rows

directory, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
store = open_store(directory)
chance = random.Random(name)
print("begun", flush=True)
for number in range(count):
    # Few different values: most are there already, or were collected a moment ago.
    value = np.full(20_000, chance.randrange(4))
    made = rows.made(store, f"{name}-{number}", value, run_id=f"{name}-{number}")
    time.sleep(chance.random() * 0.01)
    rows.record(store, made).wait()
    stored = store.current(f"{name}-{number}")[0].materialization.value
    assert (store.get(stored, key=name) == value).all()
    # Forgotten: nobody refers to the value until it is written again.
    housekeeping.forget(store, f"{name}-{number}")
    print(number, flush=True)
last = rows.made(store, f"{name}-last", np.full(20_000, int(name[-1])), run_id=name)
rows.record(store, last).wait()
store.close()
