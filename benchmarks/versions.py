"""Times of code versions and data versions, each compared with a lower bound (floor) timed in the same run.

    python benchmarks/versions.py [ROUNDS]

``1,000 steps``   code versions of 1,000 one-line steps in a fresh process; floor: ``marshal.dumps(code)`` and blake3 for each
``100 helpers``   the code version of a step that reaches 100 helpers, cold (a fresh process) and warm (nothing redefined, a new run);
                  floor: ``marshal.dumps(code)`` and blake3 for each of the 101
``300,000 dicts`` the data version of a dict of as many small dicts, and the code version of a step that reads it as a global; floor:
                  ``marshal.dumps(value, 2)`` and blake3
``frame``         the data version of a frame of 5 million rows, by kind of column; floor: blake3 over the same bytes (what Arrow or
                  numpy holds them in), with the same threads

Rounds interleave floor and product, so that both have the same load of the machine. Printed are the minimum times and their ratio. Quote the
ratios.
"""

import json
import marshal
import subprocess
import sys
import time

ROWS = 5_000_000


def timed(call):
    """Return the wall time of a call in seconds; for calls that use several threads."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def worked(call):
    """Return the processor time of this thread for a call, in seconds; other load of the machine does not count."""
    started = time.thread_time()
    call()
    return time.thread_time() - started


def notebook(text):
    space = {"__name__": "__main__"}
    exec(compile(text, "/tmp/ipykernel_1/1.py", "exec"), space)
    return space


def warm_up():
    """Import the modules of both sides; the first code version of a process also locates the standard library."""
    import blake3

    from stepwell.kernel_runtime.versions.walk import CodeWalk

    space = notebook("def first(): return len(())\n")
    CodeWalk(namespace=space).of(space["first"], path="first")
    return blake3.blake3, CodeWalk


def steps():
    """Time the code versions of 1,000 one-line steps; floor and product use separate functions, compiled alike."""
    blake3, walk_of = warm_up()
    text = "RATE = 3\n" + "".join(f"def f{number}(x): return x * RATE + {number}\n" for number in range(1000))
    spaces = notebook(text), notebook(text)
    floor_of, ours_of = ([space[f"f{number}"] for number in range(1000)] for space in spaces)
    floor = worked(lambda: [blake3(marshal.dumps(function.__code__)).digest() for function in floor_of])
    walk = walk_of(namespace=spaces[1])
    ours = worked(lambda: [walk.of(function, path="f") for function in ours_of])
    return {"1,000 steps": (ours, floor)}


def helpers():
    blake3, walk_of = warm_up()
    text = (
        "".join(f"def h{number}(x): return h{number + 1}(x) + {number}\n" for number in range(99))
        + "def h99(x): return x\ndef target(): return h0(1)\n"
    )
    spaces = notebook(text), notebook(text)
    names = ["target", *(f"h{number}" for number in range(100))]
    floor = worked(lambda: [blake3(marshal.dumps(spaces[0][name].__code__)).digest() for name in names])
    target = spaces[1]["target"]
    cold = worked(lambda: walk_of(namespace=spaces[1]).of(target, path="target"))
    warm = min(worked(lambda: walk_of(namespace=spaces[1]).of(target, path="target")) for _ in range(5))
    return {"100 helpers, cold": (cold, floor), "100 helpers, nothing redefined": (warm, floor)}


def dicts():
    blake3, walk_of = warm_up()
    from stepwell.kernel_runtime.versions.data import data_version

    value = {number: {"a": number, "b": str(number)} for number in range(300_000)}
    space = notebook("def target(): return len(value)\n")
    space["value"] = value
    floor = worked(lambda: blake3(marshal.dumps(value, 2)).digest())
    data = worked(lambda: data_version(value))
    code = worked(lambda: walk_of(namespace=space).of(space["target"], path="target"))
    return {"300,000 dicts, data version": (data, floor), "300,000 dicts, code version": (code, floor)}


def frames(kind):
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from blake3 import blake3

    from stepwell.kernel_runtime.versions.data import data_version

    random = np.random.default_rng(0)
    columns = {
        "int64": lambda: random.integers(0, 1 << 40, ROWS),
        "float64": lambda: random.normal(size=ROWS),
        "float64 with NaN": lambda: np.where(random.random(ROWS) < 0.1, np.nan, random.normal(size=ROWS)),
        "int32": lambda: random.integers(0, 1000, ROWS).astype("int32"),
        "bool": lambda: random.random(ROWS) < 0.5,
        "datetime": lambda: pd.date_range("2020-01-01", periods=ROWS, freq="s").to_numpy(),
        "string": lambda: pd.array(
            pa.array([f"name {number % 70001}" for number in range(ROWS)], pa.large_string()), dtype="str"
        ),
        "string with missing": lambda: pd.array(
            pa.array([None if number % 10 == 0 else f"name {number % 70001}" for number in range(ROWS)], pa.large_string()),
            dtype="str",
        ),
        "categorical": lambda: pd.Categorical.from_codes(random.integers(0, 50, ROWS), [f"c{number}" for number in range(50)]),
    }
    mixed = ["int64", "float64", "float64 with NaN", "int32", "bool", "datetime", "string"]
    frame = pd.DataFrame({name: columns[name]() for name in (mixed if kind == "mixed" else [kind])})
    buffers = []
    for name in frame:
        values = frame[name].array
        arrow = getattr(values, "_pa_array", None)
        if arrow is not None:
            buffers += [memoryview(buffer) for chunk in arrow.chunks for buffer in chunk.buffers() if buffer is not None]
        elif kind == "categorical":
            buffers.append(memoryview(values.codes).cast("B"))
        else:
            buffers.append(memoryview(np.ascontiguousarray(frame[name].to_numpy()).view("u1")))
    times = []
    for _ in range(4):
        floor = timed(lambda: [blake3(buffer, max_threads=blake3.AUTO).digest() for buffer in buffers])
        ours = timed(lambda: data_version(frame))
        times.append((ours, floor))
    # The first round includes page faults.
    best = [min(side) for side in zip(*times[1:], strict=True)]
    return {
        f"{'mixed frame' if kind == 'mixed' else 'column ' + kind}, {sum(buffer.nbytes for buffer in buffers) >> 20} MiB": best
    }


def main():
    if len(sys.argv) > 2 and sys.argv[1] == "--one":
        name, _, kind = sys.argv[2].partition(":")
        print(json.dumps({"steps": steps, "helpers": helpers, "dicts": dicts}[name]() if name != "frames" else frames(kind)))
        return
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    kinds = [
        "mixed",
        "int64",
        "float64",
        "float64 with NaN",
        "int32",
        "bool",
        "datetime",
        "string",
        "string with missing",
        "categorical",
    ]
    times = {}
    for turn in range(rounds):
        for workload in [
            "steps",
            "helpers",
            "dicts",
            *(f"frames:{kind}" for kind in kinds if turn == 0 or kind == "mixed"),
        ]:
            done = subprocess.run([sys.executable, __file__, "--one", workload], capture_output=True, text=True, check=True)
            for name, pair in json.loads(done.stdout).items():
                times.setdefault(name, []).append(pair)
    print(f"{'':38}{'ours':>12}{'floor':>12}{'ratio':>8}")
    for name, pairs in times.items():
        ours, floor = (min(side) for side in zip(*pairs, strict=True))
        print(f"{name:38}{ours * 1e3:9.2f} ms{floor * 1e3:9.2f} ms{ours / floor:8.1f}")


if __name__ == "__main__":
    main()
