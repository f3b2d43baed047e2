"""Overhead of a step without work: Stepwell compared with joblib.Memory, Hamilton's cache and plain calls, in one run.

    python benchmarks/steps.py [N,N,...] [ROUNDS]

The workload is a chain of N one-line functions, each with the previous one as its input. Each measurement is a fresh process; imports are not
counted. Rounds interleave the contestants, so that all have the same load of the machine. Printed are the minimum times in microseconds per step,
and the ratio of Stepwell's time to the others, in wall time and in processor time. Quote the ratios. A contestant that is not installed is omitted.

``cold``     every step runs and is stored durably
``no-op``    a fresh process reuses everything
``changed``  the step in the middle is edited: in a fresh process it and all later steps run
``live``     the same process requests the chain again (Stepwell only)
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORKLOADS = ("cold", "no-op", "changed", "live")
BUDGET = {"cold": ("joblib", 0.1), "no-op": ("hamilton", 0.1), "live": ("", 30)}
"""The goals at 1,000 steps: a fraction of the time of a contestant, or microseconds per step."""


def module(count, changed):
    """Write the chain as a module in the working directory, and import it."""
    folder = Path.cwd()
    lines = ["def s0() -> int:\n    return 1\n"]
    for number in range(1, count):
        added = 2 if changed and number == count // 2 else 1
        lines.append(f"def s{number}(s{number - 1}: int) -> int:\n    return s{number - 1} + {added}\n")
    (folder / "bench_steps.py").write_text("\n".join(lines))
    sys.path.insert(0, str(folder))
    import bench_steps

    return bench_steps


def functions(chain, count):
    return [getattr(chain, f"s{number}") for number in range(count)]


class Measured:
    """Seconds of a block: wall time and processor time."""

    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def stepwell(chain, count, expected):
    import duckdb  # noqa: F401 - imports are not counted

    import stepwell
    import stepwell.commands.materialize
    import stepwell.kernel_runtime.reads.hooks
    import stepwell.kernel_runtime.store.store

    with Measured() as first:
        assets = [stepwell.asset(function) for function in functions(chain, count)]
        result = stepwell.materialize(assets, store="stepwell-store")
        assert result.value(f"s{count - 1}") == expected
    live = []
    for _ in range(5):
        with Measured() as repeat:
            stepwell.materialize(assets, store="stepwell-store")
        live.append((repeat.wall, repeat.cpu))
    return {"first": (first.wall, first.cpu), "live": [min(side) for side in zip(*live, strict=True)]}


def joblib(chain, count, expected):
    import joblib as library

    with Measured() as first:
        memory = library.Memory("joblib-store", verbose=0)
        first_step, *others = functions(chain, count)
        value = memory.cache(first_step)()
        for function in others:
            value = memory.cache(function)(value)
    assert value == expected
    return {"first": (first.wall, first.cpu)}


def hamilton(chain, count, expected):
    from hamilton import driver

    # Hamilton follows the chain recursively.
    sys.setrecursionlimit(1_000_000)
    last = f"s{count - 1}"
    with Measured() as first:
        built = driver.Builder().with_modules(chain).with_cache(path="hamilton-store").build()
        value = built.execute([last])[last]
    assert value == expected
    return {"first": (first.wall, first.cpu)}


def plain(chain, count, expected):
    with Measured() as first:
        first_step, *others = functions(chain, count)
        value = first_step()
        for function in others:
            value = function(value)
    assert value == expected
    return {"first": (first.wall, first.cpu)}


CONTESTANTS = {"stepwell": stepwell, "joblib": joblib, "hamilton": hamilton, "plain": plain}


def measure(name, count, folder, *, changed=False):
    """Run one contestant in a fresh process; None if its package is not installed."""
    command = [sys.executable, os.path.abspath(__file__), "--child", name, str(count), "changed" if changed else ""]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def measured(count, rounds):
    """Return the minimum seconds by contestant and workload: wall time and processor time."""
    best = {}
    remaining = dict.fromkeys(CONTESTANTS)
    for _ in range(rounds):
        for name in [*remaining]:
            with tempfile.TemporaryDirectory() as folder:
                cold = measure(name, count, folder)
                if cold is None:
                    del remaining[name]
                    continue
                second_run = measure(name, count, folder)
                changed = measure(name, count, folder, changed=True)
            times = {"cold": cold["first"], "no-op": second_run["first"], "changed": changed["first"]}
            if "live" in second_run:
                times["live"] = second_run["live"]
            for workload, pair in times.items():
                before = best.get((name, workload), pair)
                best[name, workload] = [min(side) for side in zip(before, pair, strict=True)]
    return best


def main():
    if sys.argv[1:2] == ["--child"]:
        name, count, changed = sys.argv[2], int(sys.argv[3]), sys.argv[4:5] == ["changed"]
        expected = count + (1 if changed else 0)
        print(json.dumps(CONTESTANTS[name](module(count, changed), count, expected)))
        return
    counts = [int(text) for text in (sys.argv[1] if len(sys.argv) > 1 else "1000,10000").split(",")]
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    for count in counts:
        best = measured(count, rounds)
        names = [name for name in CONTESTANTS if (name, "cold") in best]
        print(f"{count:,} steps, least of {rounds}: microseconds a step (of the clock / of the processors: Stepwell's part)")
        print(f"{'':9}" + "".join(f"{name:>24}" for name in names) + f"{'goal':>24}")
        for workload in WORKLOADS:
            stepwell_time = best["stepwell", workload]
            shown = ""
            for name in names:
                wall, cpu = best.get((name, workload), (None, None))
                if wall is None:
                    shown += f"{'':24}"
                    continue
                parts = (
                    "" if name in ("stepwell", "plain") else f" ({stepwell_time[0] / wall:.2f} / {stepwell_time[1] / cpu:.2f})"
                )
                shown += f"{f'{wall / count * 1e6:,.1f}{parts}':>24}"
            peer, goal = BUDGET.get(workload, ("", None))
            print(f"{workload:9}{shown}{f'{goal} of {peer}' if peer else f'{goal} us' if goal else '':>24}")


if __name__ == "__main__":
    main()
