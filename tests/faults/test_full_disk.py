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
    found = store.catalog.ask(lambda con, name: con.execute(f"SELECT key FROM {name}.steps").fetchall())
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
    from stepwell.kernel_runtime.store.catalog import compaction
    from stepwell.kernel_runtime.store.store import open_store

    def step(name):
        return StepRecord("r", name, "skipped", 0.0, reason=hashlib.sha512(name.encode()).hexdigest() * 20)

    READ = ("import sys; from stepwell.kernel_runtime.store.store import open_store\\n"
            "store = open_store(sys.argv[1]); print(store.catalog.ask("
            "lambda con, name: con.execute(f'SELECT count(*) FROM {name}.steps').fetchall())[0][0]); store.close()")
    store = open_store(sys.argv[1])
    refused = 0
    for number, room in enumerate((20_000, 100_000, 300_000, 600_000, 1_000_000, 1_500_000, 2_000_000)):
        for index in range(300):
            store.record_step(step(f"{number}-{index}"))
        store.flush()
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
        try:
            compaction.compact(store.catalog, force=True)
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


FREEING = textwrap.dedent(
    """
    import os, sys
    import numpy as np
    import stepwell
    from stepwell.batch.command_line import main
    from stepwell.kernel_runtime.errors import StoreFullError
    disk, leftovers = sys.argv[1], sys.argv[2] == "leftovers"
    store = f"{disk}/store"

    def made(name, rows):
        namespace = {"np": np}
        exec(f"def {name}(): return np.arange({rows})", namespace)
        return stepwell.asset(namespace[name])

    def fill():
        with open(f"{disk}/filler", "ab", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    pass
        assert room() == 0

    def room():
        return os.statvfs(disk).f_bavail * 4096

    stepwell.materialize([made("large", 300_000), made("other", 400_000), made("small", 5)], store=store)
    assert os.stat(f"{store}/reserve").st_blocks * 512 >= 1 << 20
    if leftovers:
        # Nobody has kept room, and a dead process left a file.
        os.unlink(f"{store}/reserve")
        with open(f"{store}/tmp/left", "wb") as file:
            file.write(bytes(100_000))
        os.utime(file.name, (1e9, 1e9))
    fill()
    try:
        stepwell.materialize([made("refused", 300_000)], store=store)
        raise SystemExit("the disk was never full")
    except StoreFullError as error:
        assert "damaged" not in str(error) and "rebuild" not in str(error), error
    assert main(["doctor", "--store", store]) == 0
    # More than once: what was given up is kept again.
    for _ in range(3):
        stepwell.gc(store=store)
        assert leftovers or os.path.exists(f"{store}/reserve")
        fill()
    stepwell.forget("large", yes=True, store=store)
    assert room() > 1 << 20
    assert main(["doctor", "--store", store]) == 0
    assert stepwell.load("other", store=store)[-1] == 399_999
    stepwell.materialize([made("next", 50_000)], store=store)
    assert stepwell.load("next", store=store)[-1] == 49_999
    assert list(stepwell.load("small", store=store)) == [0, 1, 2, 3, 4]
    """
)


@pytest.mark.parametrize("room", ["reserve", "leftovers"])
def test_on_a_disk_without_any_room_gc_forget_and_doctor_work(tmp_path, room):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        done = subprocess.run(
            [sys.executable, "-c", FREEING, str(disk), room],
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
            env=os.environ,
        )
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)
    assert done.returncode == 0, done.stdout + done.stderr
