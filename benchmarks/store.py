"""Times of storing and loading values: Stepwell compared with common formats, and many processes on one store.

    python benchmarks/store.py [--scale S] [--rounds N] [--only frame,array,objects,processes]

Every measurement is a fresh process; imports and the computation of the value are not counted. Rounds interleave the contestants, so that
all have the same load of the machine. Printed are the minimum of the rounds and the ratio to ``raw``, which writes the bytes that Stepwell
stores to one file and reads them back. No contestant syncs to the disk. Quote the ratios.

``frame``      a pandas frame of 5 million rows: integers, floats, dates, strings, categories
``array``      400 MB of integers
``objects``    10,000 small dictionaries, each stored under a separate name
``processes``  1, 2, 4, 8 processes that record steps in one store: rows per second, lost rows, lock errors
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stepwell.kernel_runtime.store import housekeeping

VALUES = {
    "frame": ("raw", "stepwell", "pickle", "joblib.dump", "joblib.Memory", "parquet", "arrow ipc"),
    "array": ("raw", "stepwell", "pickle", "joblib.dump", "joblib.Memory", "npy"),
    "objects": ("raw", "stepwell", "pickle", "joblib.dump", "joblib.Memory"),
}


# -- the values ----------------------------------------------------------------------------------------------------------


def frame(scale):
    import numpy as np
    import pandas as pd

    rows = int(5_000_000 * scale)
    chance = np.random.default_rng(0)
    words = np.array([f"word {number:04d}{'.' * (number % 9)}" for number in range(1000)], dtype=object)
    return pd.DataFrame(
        {
            "integer": chance.integers(0, 10**9, rows),
            "float": chance.standard_normal(rows),
            "time": pd.Timestamp("2026-01-01") + pd.to_timedelta(chance.integers(0, 10**8, rows), unit="s"),
            "text": pd.Series(words[chance.integers(0, 1000, rows)], dtype="str"),
            "kind": pd.Categorical.from_codes(chance.integers(0, 5, rows), list("abcde")),
        }
    )


def array(scale):
    import numpy as np

    return np.random.default_rng(0).integers(0, 2**60, int(50_000_000 * scale))


def objects(scale):
    return [{"id": number, "name": f"step {number}", "values": [number, 1.5, None]} for number in range(int(10_000 * scale))]


# -- the contestants: each returns a function that writes and one that reads --------------------------------------------------


def raw(value, kind):
    """Return functions that write and read the bytes that Stepwell stores."""
    from stepwell.kernel_runtime.store.values.codecs import encode

    def write():
        for number, item in enumerate(value if kind == "objects" else [value]):
            encoded = forms[number]
            del item
            with open(f"value{number}", "wb", buffering=0) as file:
                for part in (memoryview(encoded.stream), *map(memoryview, encoded.buffers)):
                    file.writelines(part[start : start + (64 << 20)] for start in range(0, len(part), 64 << 20))

    def read():
        return [Path(f"value{number}").read_bytes() for number in range(count)]

    forms = [encode(item, key="v") for item in (value if kind == "objects" else [value])] if value is not None else []
    count = len(list(Path().glob("value*")))
    return write, read


def stepwell(value, kind):
    from stepwell.kernel_runtime.records.keys import new_id
    from stepwell.kernel_runtime.records.materializations import Current, Materialization
    from stepwell.kernel_runtime.records.runs import StepRecord
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store("store")

    def write():
        for number, item in enumerate(value if kind == "objects" else [value]):
            key = f"value{number}"
            stored = store.put(item, key=key, memo_key=key)
            materialization = Materialization(
                new_id(), "run", key, key, "result", "bench", key, "code", stored.digest, stored, time.time(), 0.0
            )
            store.record_step(
                StepRecord("run", key, "executed", materialization.created, 0.0, key, (materialization,)),
                current=[Current("bench", key, materialization)],
            )
        store.flush()

    def read():
        keys = store.keys()
        held = store.snapshot(keys, (), ()).current
        return [store.get(held[key][0].materialization.value, key=key) for key in keys]

    return write, read


def one_file_each(value, kind, save, load):
    def write():
        for number, item in enumerate(value if kind == "objects" else [value]):
            save(item, f"value{number}")

    def read():
        return [load(f"value{number}") for number in range(count)]

    count = len(list(Path().glob("value*")))
    return write, read


def pickled(value, kind):
    def save(item, path):
        with open(path, "wb") as file:
            pickle.dump(item, file, 5)

    def load(path):
        with open(path, "rb") as file:
            return pickle.load(file)

    return one_file_each(value, kind, save, load)


def joblib_dump(value, kind):
    import joblib

    return one_file_each(value, kind, joblib.dump, lambda path: joblib.load(path, mmap_mode=mapped(kind)))


def mapped(kind):
    """Return functions that use joblib, with mapped arrays for a fair comparison."""
    return "c" if kind == "array" else None


def joblib_memory(value, kind):
    import joblib

    Path("bench_values.py").write_text("VALUES = None\ndef compute(at):\n    return VALUES[at]\n")
    sys.path.insert(0, os.getcwd())
    import bench_values

    values = value if kind == "objects" else [value]
    bench_values.VALUES = values
    compute = joblib.Memory("memory", verbose=0, mmap_mode=mapped(kind)).cache(bench_values.compute)
    count = len(values) if value is not None else int(Path("count").read_text())

    def write():
        for number in range(count):
            compute(number)
        Path("count").write_text(str(count))

    return write, lambda: [compute(number) for number in range(count)]


def parquet(value, kind):
    import pandas as pd
    import pyarrow.parquet  # noqa: F401 - imports are not counted

    return one_file_each(value, kind, lambda item, path: item.to_parquet(path), pd.read_parquet)


def arrow_ipc(value, kind):
    import pyarrow as pa

    def save(item, path):
        table = pa.Table.from_pandas(item)
        with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def load(path):
        return pa.ipc.open_file(pa.memory_map(path)).read_all().to_pandas()

    return one_file_each(value, kind, save, load)


def npy(value, kind):
    import numpy as np

    return one_file_each(
        value, kind, lambda item, path: np.save(path + ".npy", item), lambda path: np.load(path + ".npy", mmap_mode="c")
    )


CONTESTANTS = {
    "raw": raw,
    "stepwell": stepwell,
    "pickle": pickled,
    "joblib.dump": joblib_dump,
    "joblib.Memory": joblib_memory,
    "parquet": parquet,
    "arrow ipc": arrow_ipc,
    "npy": npy,
}


# -- measuring -----------------------------------------------------------------------------------------------------------


def resident():
    """Return the resident memory of this process in bytes, or 0 if the system does not report it."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return 0
    return int(fields["VmRSS"].split()[0]) * 1024


def child(name, kind, phase, scale):
    import numpy as np  # noqa: F401 - imports are not counted
    import pandas as pd  # noqa: F401 - likewise

    value = {"frame": frame, "array": array, "objects": objects}[kind](scale) if phase == "write" else None
    write, read = CONTESTANTS[name](value, kind)
    before, started = resident(), time.perf_counter()
    result = write() if phase == "write" else read()
    seconds = time.perf_counter() - started
    memory = resident() - before
    del result
    print(json.dumps({"seconds": seconds, "memory": memory}))


def measured(name, kind, phase, scale, folder):
    command = [sys.executable, os.path.abspath(__file__), "--child", name, kind, phase, str(scale)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{name}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def disk(folder):
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file() and path.suffix != ".py")


def compare(kind, scale, rounds):
    results = {}
    for _ in range(rounds):
        for name in VALUES[kind]:
            with tempfile.TemporaryDirectory() as folder:
                wrote = measured(name, kind, "write", scale, folder)
                size = disk(folder)
                reading = measured(name, kind, "read", scale, folder) if wrote else None
            if wrote and reading:
                results.setdefault(name, []).append((wrote["seconds"], reading["seconds"], size, reading["memory"]))
    print(f"\n{kind}, best of {rounds}: ratio to raw in brackets")
    print(f"  {'':14}{'write s':>9}{'':8}{'read s':>10}{'':9}{'disk MB':>9}{'memory at load MB':>20}")
    raw_write = min(times[0] for times in results["raw"])
    raw_read = min(times[1] for times in results["raw"])
    for name, times in results.items():
        write, read, size, memory = (min(row[column] for row in times) for column in range(4))
        print(
            f"  {name:14}{write:9.3f} ({write / raw_write:5.2f}){read:10.4f} ({read / raw_read:6.2f})"
            f"{size / 1e6:9.1f}{memory / 1e6:20.1f}"
        )


# -- many processes --------------------------------------------------------------------------------------------------------

BATCH = 20


def writer(name, seconds):
    from stepwell.kernel_runtime.records.keys import new_id
    from stepwell.kernel_runtime.records.materializations import Current, Materialization
    from stepwell.kernel_runtime.records.runs import StepRecord
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store("store")
    store.keys()
    print("ready", flush=True)
    sys.stdin.readline()
    until, rows, longest = time.monotonic() + seconds, 0, 0.0
    while time.monotonic() < until:
        for number in range(BATCH):
            key = f"{name}_{rows}_{number}"
            stored = store.put([key, rows], key=key, memo_key=key)
            materialization = Materialization(
                new_id(), name, key, key, "result", name, key, "c", stored.digest, stored, time.time(), 0.0
            )
            commit = store.record_step(
                StepRecord(name, key, "executed", materialization.created, 0.0, key, (materialization,)),
                current=[Current(name, key, materialization)],
            )
        started = time.monotonic()
        commit.wait()
        longest = max(longest, time.monotonic() - started)
        rows += BATCH
    store.close()
    print(json.dumps({"rows": rows, "longest": longest}))


def throughput(counts, seconds):
    print(f"\nprocesses on one store, {seconds:g} s each, groups of {BATCH} steps that are waited for")
    print(f"  {'':10}{'rows/s':>8}{'lost':>6}{'errors':>8}{'fewest/most rows of one':>26}{'longest wait s':>16}")
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            started = [
                subprocess.Popen(
                    [sys.executable, os.path.abspath(__file__), "--writer", f"w{number}", str(seconds)],
                    cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                )
                for number in range(count)
            ]  # fmt: skip
            for process in started:
                process.stdout.readline()
            for process in started:
                process.stdin.write("go\n")
                process.stdin.flush()
            done = [process.communicate() for process in started]
            errors = sum(process.returncode != 0 or bool(err) for process, (_, err) in zip(started, done, strict=True))
            reports = [json.loads(out.splitlines()[-1]) for out, _ in done if out]
            rows = [report["rows"] for report in reports]
            counted = subprocess.run(
                [sys.executable, os.path.abspath(__file__), "--count"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=True,
            )
            lost = sum(rows) - int(counted.stdout)
            longest = max(report["longest"] for report in reports)
        print(f"  {count:<10}{sum(rows) / seconds:8.0f}{lost:6}{errors:8}{f'{min(rows)} / {max(rows)}':>26}{longest:16.2f}")


def main():
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:5], float(sys.argv[5]))
    if sys.argv[1:2] == ["--writer"]:
        return writer(sys.argv[2], float(sys.argv[3]))
    if sys.argv[1:2] == ["--count"]:
        from stepwell.kernel_runtime.store.store import open_store

        return print(housekeeping.sizes(open_store("store"))["materializations"])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes (default: 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="that each writing process writes")
    parser.add_argument("--only", default="frame,array,objects,processes", help="what to measure")
    asked = parser.parse_args()
    # A separate key, so that a benchmark creates none in the user's configuration folder.
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEPWELL_KEY_FILE"] = os.path.join(folder, "key")
        for kind in asked.only.split(","):
            if kind == "processes":
                throughput((1, 2, 4, 8), asked.seconds)
            else:
                compare(kind, asked.scale, asked.rounds)
    return None


if __name__ == "__main__":
    main()
