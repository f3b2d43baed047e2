"""Every file and folder of a store, replaced by something through which a store could reach elsewhere: nothing elsewhere is touched."""

import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest

import stepwell
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.catalog.schema import FORMAT
from stepwell.kernel_runtime.store.store import open_store
from tests.store import replacements, rows

ROOT = Path(__file__).parents[2]
HANG = 120
"""Seconds after which a place counts as one that hangs: nineteen commands are run in this time, on a busy machine."""
NOBODY = 65534
KINDS = ("link to a file", "link to a folder", "link to nothing", "hard link", "pipe", "socket", "device", "no rights")


@pytest.fixture(scope="module")
def ground():
    """Return a folder that every user can reach, with a store that has had everything done to it."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPWELL_KEY_FILE", str(folder / "key"))
        made(folder / "template")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    yield folder
    shutil.rmtree(folder)


def made(directory):
    """Make a store with everything that one can contain."""
    from stepwell.kernel_runtime.store.doctor.examination import examine

    stepwell.materialize([replacements.large, replacements.other, replacements.small], store=directory)
    store = get_session().open(directory)
    housekeeping.forget(store, "other")
    with store.folder.scratch():
        pass
    housekeeping.write_sizes(store.folder, housekeeping.measure(store))
    store.close()
    list(examine(directory, rebuild_catalog=True))
    store = open_store(directory)
    rows.record(store, rows.made(store, "more", np.arange(40_000))).wait()
    claim = store.claims.take("0" * 32, Claimant())
    store.close()
    # What living and dead processes leave, and an older format.
    for name in ("runs/n.ipynb", "tmp/left", "damaged/broken.arrow", "writers/dead"):
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(b"{}")
    claimed = (directory / "claims" / ("0" * 32)).read_bytes()
    claim.release()
    (directory / "claims" / ("0" * 32)).write_bytes(claimed)
    shutil.copy(directory / "catalog.duckdb", directory / f"catalog.format-{FORMAT - 1}.duckdb")
    (directory / "catalog.duckdb.wal").write_bytes(b"")
    (directory / "tmp" / "folder").mkdir()


def places(directory):
    """Return what a store contains, as paths below it: everything once, of value files one."""
    found, values = [], 0
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if name.count("/") >= 1 and name.startswith("objects/"):
            values += name.count("/") == 2
            if values > 1 or (values == 1 and name.count("/") == 1):
                continue
        found.append(name)
    return [*found, "catalog.duckdb.wal.checkpoint", "catalog.duckdb.wal.recovery", "objects/zz", "anything"]


def lines_of(process):
    """Yield what a process prints, line by line; a `queue.Empty` where it hangs."""
    said = queue.Queue()

    def read():
        for line in process.stdout:
            said.put(line)
        said.put(None)

    threading.Thread(target=read, daemon=True).start()
    while (line := said.get(timeout=HANG)) is not None:
        yield line


@pytest.mark.attack(
    tried="A file or folder of a store is a link, a hard link to another file, a pipe, a socket or a device, or cannot be accessed.",
    holds="No command reads, writes, renames or removes anything outside of the store, and no command waits for a pipe.",
)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_in_the_place_of_a_file_or_folder_nothing_elsewhere_is_touched(ground, kind):
    try_places(ground, kind, [name for name in places(ground / "template") if is_quick(kind, name)])


def is_quick(kind, name):
    """Tell whether a place is tried in the suite; `tests/soak` tries all. Where a store is refused at once, nineteen commands take no time."""
    if kind == "no rights":
        return name in ("objects", "catalog.duckdb")
    if kind == "hard link":
        return name.startswith(("catalog.duckdb", "catalog.lock", "catalog.seal", "want"))
    return name.count("/") < 2 or (kind in ("link to a file", "pipe") and name.startswith("objects/"))


def try_places(ground, kind, names):
    """Replace one place after the other, and run every command after each replacement."""
    precious, work = ground / "precious", ground / "work"
    shutil.rmtree(precious, ignore_errors=True)
    (precious / "folder" / "deep").mkdir(parents=True)
    for name in ("file", "folder/one", "folder/old.duckdb", "folder/deep/two"):
        (precious / name).write_text("precious")
        os.utime(precious / name, (1e9, 1e9))
    user = NOBODY if kind == "no rights" and os.getuid() == 0 else 0
    if user:
        work.mkdir(exist_ok=True)
    folder = ground / "as-nobody" if user else ground
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777 if user else 0o755)
    program = Path(__file__).with_name("replacements.py")
    process = subprocess.Popen(
        [sys.executable, str(program), str(ground / "template"), str(folder / "work"), str(precious), kind, str(user), *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "STEPWELL_KEY_FILE": str(folder / "key"), "HOME": str(folder)},
    )  # fmt: skip
    tried = []
    try:
        for line in lines_of(process):
            found = json.loads(line)
            if found is not None:
                tried.append(found["place"])
                judge(kind, **found)
    finally:
        process.kill()
        _, errors = process.communicate()
    # Folders have no hard links.
    assert len(tried) >= len(names) // 2, errors


def judge(kind, place, results, changed):
    assert not changed, (kind, place, changed, results)
    # The documented exit codes: 2 where a command finds no such key.
    allowed = {0, 1, 2, 3, 5, 6, "done"}
    for name, result in results.items():
        assert result in allowed or str(result).endswith("Error"), (kind, place, name, result)
    examined = place.count("/") < 2 and not (place.startswith("tmp/folder/"))
    if kind in ("link to a file", "link to a folder", "link to nothing", "pipe", "socket", "device") and examined:
        refused = {name for name, result in results.items() if result in (5, "UntrustedStoreError")}
        assert refused == set(results), (kind, place, results)
