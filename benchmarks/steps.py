"""What a step of no work costs: Stepwell beside joblib.Memory and plain calls, in one run.

    python benchmarks/steps.py [N] [ROUNDS]

Each measurement is a fresh process; imports are not counted. Rounds interleave the contestants, so that all see the same load of the
machine; printed are medians in microseconds a step, and the ratio to Stepwell. Quote the ratios.

``cold``   every step runs and is kept durably
``no-op``  a fresh process finds everything kept
``live``   the same process asks again (Stepwell only: the others have no run that asks)
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def functions(count):
    """A chain of `count` one-line functions, each of the one before."""
    folder = Path.cwd()
    lines = ["def s0():\n    return 1\n"] + [f"def s{i}(s{i - 1}):\n    return s{i - 1} + 1\n" for i in range(1, count)]
    (folder / "bench_steps.py").write_text("\n".join(lines))
    sys.path.insert(0, str(folder))
    import bench_steps

    return [getattr(bench_steps, f"s{i}") for i in range(count)]


def stepwell(chain):
    import duckdb  # noqa: F401 - imports are not counted

    import stepwell
    import stepwell.kernel_runtime.session.functions
    import stepwell.kernel_runtime.store.store

    started = time.perf_counter()
    assets = [stepwell.asset(function) for function in chain]
    result = stepwell.materialize(assets, store="stepwell-store")
    assert result.value(f"s{len(chain) - 1}") == len(chain)
    first = time.perf_counter() - started
    live = []
    for _ in range(3):
        started = time.perf_counter()
        stepwell.materialize(assets, store="stepwell-store")
        live.append(time.perf_counter() - started)
    return {"first": first, "live": min(live)}


def joblib(chain):
    import joblib as library

    started = time.perf_counter()
    memory = library.Memory("joblib-store", verbose=0)
    value = memory.cache(chain[0])()
    for function in chain[1:]:
        value = memory.cache(function)(value)
    assert value == len(chain)
    return {"first": time.perf_counter() - started}


def plain(chain):
    started = time.perf_counter()
    value = chain[0]()
    for function in chain[1:]:
        value = function(value)
    return {"first": time.perf_counter() - started}


CONTESTANTS = {"stepwell": stepwell, "joblib": joblib, "plain": plain}


def measure(name, count, folder):
    """Run one contestant in a fresh process; None if its package is not installed."""
    command = [sys.executable, os.path.abspath(__file__), "--child", name, str(count)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main():
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(CONTESTANTS[sys.argv[2]](functions(int(sys.argv[3])))))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    found = {}
    for _ in range(rounds):
        for name in CONTESTANTS:
            with tempfile.TemporaryDirectory() as folder:
                cold, again = measure(name, count, folder), measure(name, count, folder)
            if cold is None or again is None:
                continue
            found.setdefault((name, "cold"), []).append(cold["first"])
            found.setdefault((name, "no-op"), []).append(again["first"])
            if "live" in again:
                found.setdefault((name, "live"), []).append(again["live"])
    print(f"{count} steps, median of {rounds}: microseconds a step (ratio to stepwell)")
    for workload in ("cold", "no-op", "live"):
        own = statistics.median(found["stepwell", workload])
        shown = [
            f"{name} {statistics.median(times) / count * 1e6:.1f} ({statistics.median(times) / own:.2f})"
            for (name, kind), times in found.items()
            if kind == workload
        ]
        print(f"  {workload:6}", "  ".join(shown))


if __name__ == "__main__":
    main()
