"""After a crash every byte of the value files in doubt is checked at their first load, once; without one nothing more is read."""

import gc
import json
import os
import subprocess
import sys
import textwrap
import time
import weakref

import numpy as np
import pytest

from stepwell.kernel_runtime.errors import ValueDamagedError
from stepwell.kernel_runtime.store.store import open_store

WRITER = textwrap.dedent(
    """
    import os, sys
    import numpy as np
    from stepwell.kernel_runtime.store.store import open_store
    store = open_store(sys.argv[1])
    for number in range(3):
        stored = store.put(np.full(20_000, number), key="a", memo_key="m")
        print(stored.object_name, flush=True)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), 9)
    """
)


class Scene:
    """A store, the three values that a writer put there, and how that ended."""

    def __init__(self, folder):
        self.folder = folder
        self.store = None

    def write(self, how):
        done = subprocess.run(
            [sys.executable, "-c", WRITER, str(self.folder), how],
            check=False,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == (-9 if how == "kill" else 0), done.stderr
        return done.stdout.split()

    def marks(self):
        return sorted(path for path in (self.folder / "writers").iterdir() if not path.suffix)

    def opened(self):
        """Open it as a new process would: this one must have forgotten it."""
        if self.store is not None:
            self.store.close()
        self.store = None
        gc.collect()
        self.store = open_store(self.folder)
        return weakref.proxy(self.store)

    def flip(self, name, at=-5000):
        with (self.folder / "objects" / name).open("rb+") as file:
            file.seek(at, os.SEEK_END)
            byte = file.read(1)
            file.seek(at, os.SEEK_END)
            file.write(bytes([byte[0] ^ 4]))


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "store")


def values(store, names):
    """Return the record of each value, by asking the store to keep it again."""
    return [store.put(np.full(20_000, number), key="a", memo_key="m") for number in range(len(names))]


def test_a_flipped_bit_is_seen_at_the_first_load_after_a_kill(scene, tmp_path):
    names = scene.write("kill")
    records = values(open_store(tmp_path / "elsewhere"), names)
    assert [record.object_name for record in records] == names
    scene.flip(names[1])
    store = scene.opened()
    assert store._shared.crashes.doubtful == set(names)
    assert store.get(records[0], key="a")[0] == 0
    with pytest.raises(ValueDamagedError, match="'a' is damaged: its contents changed"):
        store.get(records[1], key="a")
    assert not (scene.folder / "objects" / names[1]).exists()
    assert len(list((scene.folder / "damaged").iterdir())) == 1
    assert store.get(store.put(np.full(20_000, 1), key="a", memo_key="m"), key="a")[0] == 1


def test_each_file_is_checked_in_full_once(scene, tmp_path):
    names = scene.write("kill")
    records = values(open_store(tmp_path / "elsewhere"), names)
    store = scene.opened()
    for record in records[:2]:
        store.get(record, key="a")
    store = scene.opened()
    assert store._shared.crashes.doubtful == {names[2]}
    store.get(records[2], key="a")
    store = scene.opened()
    assert not store._shared.crashes.doubtful
    assert not list((scene.folder / "writers").glob("*.*"))


def test_a_zeroed_end_is_seen_after_a_power_loss_soon_after_an_orderly_end(scene, tmp_path):
    names = scene.write("end")
    (mark,) = scene.marks()
    # The machine was started again since.
    mark.write_bytes(
        mark.read_bytes().replace(json.loads(mark.read_bytes().splitlines()[0])["boot"].encode(), b"earlier")
    )
    records = values(open_store(tmp_path / "elsewhere"), names)
    path = scene.folder / "objects" / names[0]
    with path.open("rb+") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
        file.seek(-8192, os.SEEK_END)
        file.write(b"\1" * 4096)
    store = scene.opened()
    with pytest.raises(ValueDamagedError):
        store.get(records[0], key="a")
    assert store.get(records[1], key="a")[0] == 1
    assert not mark.exists()


def test_an_orderly_end_leaves_nothing_in_doubt(scene):
    names = scene.write("end")
    (mark,) = scene.marks()
    assert mark.read_bytes().endswith(b"closed\n")
    store = scene.opened()
    assert not store._shared.crashes.doubtful
    assert mark.exists()
    os.utime(mark, (time.time() - 3600,) * 2)
    scene.opened()
    assert not mark.exists()
    assert names


def test_what_was_written_long_before_is_not_in_doubt(scene):
    old = scene.write("end")
    for name in old:
        os.utime(scene.folder / "objects" / name, (time.time() - 100,) * 2)
    program = WRITER.replace("20_000", "30_000")
    subprocess.run([sys.executable, "-c", program, str(scene.folder), "kill"], check=False, timeout=240)
    store = scene.opened()
    assert len(store._shared.crashes.doubtful) == 3
    assert not store._shared.crashes.doubtful & set(old)


def test_a_writer_that_lives_is_no_crash_and_small_values_need_no_mark(scene):
    store = open_store(scene.folder)
    store.put(5, key="a", memo_key="m")
    assert not (scene.folder / "writers").exists()
    store.put(np.full(20_000, 1), key="a", memo_key="m")
    program = "import sys; from stepwell.kernel_runtime.store.store import open_store; print(len(open_store(sys.argv[1])._shared.crashes.doubtful))"
    found = subprocess.run(
        [sys.executable, "-c", program, str(scene.folder)], check=True, capture_output=True, text=True
    )
    assert found.stdout == "0\n"
    assert b"closed" not in scene.marks()[0].read_bytes()


def test_a_clock_that_is_set_back_begins_a_new_mark(scene):
    store = open_store(scene.folder)
    store.put(np.full(20_000, 1), key="a", memo_key="m")
    store._shared.crashes._own.begun = time.time() + 3600
    store.put(np.full(20_000, 2), key="a", memo_key="m")
    store.put(np.full(20_000, 3), key="a", memo_key="m")
    assert len(scene.marks()) == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_neither_closes_nor_uses_its_parents_mark(scene):
    program = textwrap.dedent(
        """
        import os, sys
        import numpy as np
        from stepwell.kernel_runtime.store.store import open_store
        store = open_store(sys.argv[1])
        store.put(np.full(20_000, 1), key="a", memo_key="m")
        child = os.fork()
        if child == 0:
            store.put(np.full(20_000, 2), key="a", memo_key="m")
            sys.exit(0)
        os.waitpid(child, 0)
        os.kill(os.getpid(), 9)
        """
    )
    subprocess.run([sys.executable, "-c", program, str(scene.folder)], check=False, capture_output=True, timeout=240)
    closed = [path.read_bytes().endswith(b"closed\n") for path in scene.marks()]
    assert sorted(closed) == [False, True]
    assert len(scene.opened()._shared.crashes.doubtful) == 2


def test_a_mark_that_says_nothing_counts(scene):
    names = scene.write("kill")
    scene.marks()[0].write_bytes(b"")
    os.utime(scene.marks()[0], (time.time() - 60,) * 2)
    assert scene.opened()._shared.crashes.doubtful == set(names)
