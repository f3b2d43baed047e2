"""Times of queries on a large catalog, in a store with many materializations.

    python benchmarks/catalog.py [MATERIALIZATIONS] [ROUNDS]
    python benchmarks/catalog.py keys [VERSIONS]

The catalog contains rows without values: 100 keys with as many versions as needed, in runs of 100 steps, some of them reused. Each query is timed in a
process that has just attached the catalog and in one that has it open. Printed are the minimum of ROUNDS in milliseconds, the same for a catalog of
a hundredth of the size, and bytes per row. Quote the ratios.

``keys`` uses stores of 100, 2,000 and 20,000 keys with VERSIONS versions each (20). It times `stepwell status`, `runs` and `versions`, and the
lineage of as many assets, fresh and after an edit that makes all of them stale.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.maintenance import Rule
from stepwell.kernel_runtime.records.materializations import Current, InputVersion, Materialization, Read, StoredValue
from stepwell.kernel_runtime.records.runs import RunRecord, StepRecord
from stepwell.kernel_runtime.session.history import read_versions
from stepwell.kernel_runtime.store import housekeeping, retention
from stepwell.kernel_runtime.store.housekeeping import fold
from stepwell.kernel_runtime.store.store import open_store

KEYS = 100


def fill(store, count, keys=KEYS):
    """Record `count` materializations in runs of `keys` steps, each followed by a run that reuses all."""
    for number in range(count // keys):
        run_id = new_id()
        run = RunRecord(run_id, "assets", "notebooks/study.ipynb", ("model",), "success", float(number), ended=number + 1.0)
        store.begin_run(run)
        materializations = []
        for key in range(keys):
            digest = f"{key:032x}{number:032x}"
            value = StoredValue(
                "pickle",
                digest,
                1000 + number,
                None,
                f"{digest[:2]}/{digest}.pickle",
                None,
                "pandas.DataFrame",
                "1,000 × 10",
            )
            item = Materialization(
                new_id(), run_id, f"asset_{key}", f"asset_{key}", "result", "notebooks/study.ipynb", digest[:32:-1], f"code{key}-{number // 10}",
                digest[-32:], value, float(number), 0.25,
                inputs=(InputVersion("raw", f"asset_{key - 1}", digest[:32]),),
                reads=(Read("file", "/data/flights.csv", digest[:32], (1, 2, 3, 4)),),
            )  # fmt: skip
            materializations.append(item)
            store.record_step(
                StepRecord(run_id, item.step_key, "executed", float(number), 0.25, item.memo_key, (item,)),
                current=[Current(item.notebook, item.key, item)],
            )
        reusing_run = new_id()
        store.begin_run(
            RunRecord(reusing_run, "assets", "notebooks/study.ipynb", ("model",), "success", number + 0.5, ended=number + 1.0)
        )
        for item in materializations:
            store.record_step(StepRecord(reusing_run, item.step_key, "reused", 0.0, 0.0, item.memo_key, (item,)))
    store.flush()


def questions(store, count):
    """Return the queries by name."""
    keys = [f"asset_{key}" for key in range(KEYS)]
    codes = [f"code{key}-{(count // KEYS - 1) // 10}" for key in range(KEYS)]

    def snapshot():
        store._shared.remembered._epoch = -1  # noqa: SLF001 - otherwise the snapshot is cached
        snapshot = store.snapshot(keys, keys, codes)
        assert len(snapshot.current) == KEYS

    return {
        "snapshot of 100 keys": snapshot,
        "current": lambda: store.current("asset_7"),
        "history of 20": lambda: store.history("asset_7"),
        "versions (all)": lambda: read_versions(store, "asset_7"),
        "keys": store.keys,
        "runs of 20": store.runs,
        "run and its steps": lambda: store.run(store.runs(limit=1)[0].run_id),
        "sizes by key": lambda: store.catalog.ask(housekeeping.read_key_sizes),
        "gc, dry": lambda: housekeeping.collect(store, dry_run=True),
    }


def measure(directory, count, rounds):
    """Return the minimum milliseconds of each query, open and just attached, and the size of the file."""
    store = open_store(directory)
    started = time.perf_counter()
    fill(store, count)
    seconds = time.perf_counter() - started
    times = {}
    for name, ask in questions(store, count).items():
        attached, opened = [], []
        for _ in range(rounds):
            store.close()
            started = time.perf_counter()
            ask()
            attached.append(time.perf_counter() - started)
            started = time.perf_counter()
            ask()
            opened.append(time.perf_counter() - started)
        times[name] = (min(attached) * 1000, min(opened) * 1000)
    retention.keep(store, "", Rule(versions=5))
    started = time.perf_counter()
    housekeeping.collect(store, dry_run=True)
    times["gc, dry, 5 versions"] = (0.0, (time.perf_counter() - started) * 1000)
    retention.keep(store, "", Rule())
    store.close()
    size = (Path(directory) / "catalog.duckdb").stat().st_size
    started = time.perf_counter()
    store.catalog.change(fold)
    times["folding"] = (0.0, (time.perf_counter() - started) * 1000)
    started = time.perf_counter()
    housekeeping.collect(store, compact=True)
    times["gc with compaction"] = (0.0, (time.perf_counter() - started) * 1000)
    store.close()
    compact = (Path(directory) / "catalog.duckdb").stat().st_size
    return times, size, compact, seconds


def listing(folder, keys, versions):
    """Return the seconds of each listing of a store with `keys` keys."""
    import stepwell

    store = open_store(folder / f"listed{keys}")
    fill(store, keys * versions, keys)
    times = {}
    for name, ask in {
        "status": lambda store: str(stepwell.status(store=store)),
        "status --json": lambda store: stepwell.status(store=store).as_dict(),
        "runs": lambda store: stepwell.runs(20, store=store),
        "versions": lambda store: read_versions(store, "asset_7"),
    }.items():
        store.close()
        started = time.perf_counter()
        ask(store)
        times[name] = time.perf_counter() - started
    store.close()
    return {**times, **lineages(folder / f"drawn{keys}", keys)}


def lineages(directory, keys):
    """Return the seconds of the lineage of `keys` assets, fresh and stale."""
    from stepwell import asset
    from stepwell.kernel_runtime.session import Session

    space = {"asset": asset, "VERSION": 0, "__name__": "__main__"}
    text = "".join(f"@asset\ndef a{number}():\n    return VERSION, {number}\n" for number in range(keys))
    exec(compile(text, "/tmp/ipykernel_1/1.py", "exec"), space)
    session = Session()
    session.namespace = space
    session.use(directory)
    for number in range(keys):
        session.registry.register(space[f"a{number}"])
    session.materialize([space[f"a{number}"] for number in range(keys)])
    times = {}
    for name in ("lineage, fresh", "lineage, stale"):
        session.store.close()
        started = time.perf_counter()
        nodes = session.inspect().lineage().nodes
        times[name] = time.perf_counter() - started
        assert {node.state for node in nodes} == {name.rpartition(" ")[2]}
        space["VERSION"] = 1
    session.store.close()
    return times


def print_listing(versions):
    """Print the times of listings by the number of keys."""
    counts = (100, 2_000, 20_000)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEPWELL_KEY_FILE"] = str(Path(folder) / "key")
        listings = [listing(Path(folder), keys, versions) for keys in counts]
    print(f"{'seconds, by the number of keys':32}" + "".join(f"{count:>10,}" for count in counts))
    for name in listings[0]:
        print(f"  {name:30}" + "".join(f"{times[name]:10.3f}" for times in listings))


def main():
    if sys.argv[1:2] == ["keys"]:
        print_listing(int(sys.argv[2]) if len(sys.argv) > 2 else 20)
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STEPWELL_KEY_FILE"] = str(Path(folder) / "key")
        small, *_ = measure(Path(folder) / "small", max(count // 100, KEYS), rounds)
        large, size, compact, seconds = measure(Path(folder) / "large", count, rounds)
    print(f"{count:,} materializations (made in {seconds:.1f} s): ms just attached / open, and those of a hundredth")
    for name, (attached, opened) in large.items():
        print(f"  {name:24} {attached:8.1f} {opened:8.1f}   {small[name][0]:8.1f} {small[name][1]:8.1f}")
    print(f"  catalog {size / 1e6:.1f} MB, {size / count:.0f} bytes a materialization; compacted {compact / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
