"""A disk that is full is an error for who waits; what was acknowledged stays, and the store goes on when there is room."""

import os
import subprocess
import sys
import textwrap

import pytest

PROGRAM = textwrap.dedent(
    """
    import hashlib, resource, sys
    from stepwell.kernel_runtime.errors import StoreError
    from stepwell.kernel_runtime.records.runs import StepRecord
    from stepwell.kernel_runtime.store.store import open_store

    def step(name):
        return StepRecord("r", name, "skipped", 0.0, reason=hashlib.sha512(name.encode()).hexdigest() * 20)

    store = open_store(sys.argv[1])
    acknowledged, refused = [], 0
    def record(names):
        global refused
        commits = [(name, store.record_step(step(name))) for name in names]
        for name, commit in commits:
            try:
                commit.wait()
                acknowledged.append(name)
            except StoreError as error:
                assert "could not record" in error.what, error
                refused += 1

    record(["first"])
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    for number in range(4):
        record([f"{number}-{index}" for index in range(300)])
    store.close()
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    record(["last"])
    assert refused, "the disk was never full"
    assert acknowledged[-1] == "last"
    found = store._catalog.ask(lambda con, name: con.execute(f"SELECT key FROM {name}.steps").fetchall())
    assert {key for (key,) in found} >= set(acknowledged), "an acknowledged row is gone"
    store.close()
    """
)


@pytest.mark.parametrize("room", [300_000, 1_000_000])
def test_a_full_disk_loses_nothing_acknowledged(tmp_path, room):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "store"), str(room)],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr


COMPACTION = textwrap.dedent(
    """
    import hashlib, resource, subprocess, sys
    from stepwell.kernel_runtime.errors import StoreError
    from stepwell.kernel_runtime.records.runs import StepRecord
    from stepwell.kernel_runtime.store.store import open_store

    def step(name):
        return StepRecord("r", name, "skipped", 0.0, reason=hashlib.sha512(name.encode()).hexdigest() * 20)

    READ = ("import sys; from stepwell.kernel_runtime.store.store import open_store\\n"
            "store = open_store(sys.argv[1]); print(store._catalog.ask("
            "lambda con, name: con.execute(f'SELECT count(*) FROM {name}.steps').fetchall())[0][0]); store.close()")
    store = open_store(sys.argv[1])
    refused = 0
    for number, room in enumerate((20_000, 100_000, 300_000, 600_000, 1_000_000, 1_500_000, 2_000_000)):
        for index in range(300):
            store.record_step(step(f"{number}-{index}"))
        store.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            store._catalog.compact(force=True)
        except StoreError as error:
            assert "compacted" in error.what, error
            refused += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        # Nobody else is kept away by what failed.
        seen = subprocess.run([sys.executable, "-c", READ, sys.argv[1]], capture_output=True, text=True, timeout=240)
        assert seen.stdout.strip() == str(300 * (number + 1)), (room, seen)
    assert refused, "the disk was never full"
    store.close()
    """
)


def test_a_compaction_for_which_there_is_no_room_loses_nothing_and_keeps_nobody_away(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", COMPACTION, str(tmp_path / "store")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in (tmp_path / "store" / "tmp").iterdir() if path.stat().st_size]
