"""A catalog that was damaged or cut short is an error that says what to do; never a shorter catalog, never another one in its place."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.store.catalog.lease import read_seal
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.store import open_store

COMMITS = 8
KILLED = textwrap.dedent(
    """
    import os, sys
    sys.path.insert(0, sys.argv[2])
    import rows
    from stepwell.kernel_runtime.store.store import open_store
    store = open_store(sys.argv[1])
    rows.record(store, *[rows.made(store, f"old{i}", "x" * 5000 + str(i), memo_key=f"o{i}") for i in range(300)]).wait()
    store.close()
    for i in range(7):
        rows.record(store, rows.made(store, f"k{i}", i, memo_key=f"m{i}")).wait()
    os._exit(0)
    """
)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Return a store with rows in the catalog and in its log, whose writer died without letting it go."""
    folder = tmp_path_factory.mktemp("killed") / "store"
    rows = str(Path(__file__).parents[1] / "store")
    subprocess.run([sys.executable, "-c", KILLED, str(folder), rows], check=True, timeout=240)
    assert (folder / "catalog.duckdb.wal").stat().st_size > 1000
    return folder


@pytest.fixture
def copy(killed, tmp_path):
    return shutil.copytree(killed, tmp_path / "store")


def files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("catalog.*") if path.name != "catalog.lock"}


def change(path, at, data):
    with path.open("rb+") as file:
        file.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        file.write(data)


def test_what_was_acknowledged_is_there_after_a_death(copy):
    store = open_store(copy)
    assert len(store.keys()) == 307
    store.close()
    assert read_seal(Folder(copy)).commits == COMMITS
    assert open_store(copy).keys()[0] == "k0"


LOG = {
    "last byte cut": lambda log, size: os.truncate(log, size - 1),
    "half of it": lambda log, size: os.truncate(log, size // 2),
    "header only": lambda log, size: os.truncate(log, 20),
    "empty": lambda log, size: os.truncate(log, 0),
    "removed": lambda log, size: log.unlink(),
    "header changed": lambda log, size: change(log, 20, b"\xff"),
    "a length changed": lambda log, size: change(log, size - 20, b"\xff" * 8),
    "a page of zeros": lambda log, size: change(log, size // 2, bytes(min(4096, size // 2))),
}


@pytest.mark.parametrize("damage", LOG)
def test_a_damaged_log_is_refused_and_left_as_it_is(copy, damage):
    log = copy / "catalog.duckdb.wal"
    LOG[damage](log, log.stat().st_size)
    before = files(copy)
    for _ in range(2):
        with pytest.raises(StoreDamagedError, match=r"lacks the last|cannot be read") as caught:
            open_store(copy)
        assert "stepwell doctor --rebuild" in caught.value.remedy
    assert files(copy) == before


def everything(folder):
    store = open_store(folder)
    found = store.catalog.ask(
        lambda con, name: [
            con.execute(f"SELECT * FROM {name}.{table} ORDER BY rowid").fetchall()
            for table in ("materializations", "steps", "current")
        ]
    )
    store.close()
    return found


def is_refused_or_complete(folder, before):
    """DuckDB reads, and checks, a part of the file when it needs it: damage to one that holds nothing shortens nothing."""
    try:
        found = everything(folder)
    except StoreDamagedError:
        return True
    assert found == before
    return False


@pytest.fixture(scope="module")
def rested(killed, tmp_path_factory):
    folder = shutil.copytree(killed, tmp_path_factory.mktemp("rested") / "store")
    return folder, everything(folder)


@pytest.mark.parametrize("data", [b"\xa5" * 64, bytes(4096)], ids=["bits", "zeros"])
def test_damaged_pages_are_refused_where_they_are_needed(rested, tmp_path, data):
    folder, before = rested
    size = (folder / "catalog.duckdb").stat().st_size
    refused = []
    for at in range(0, size, size // 15):
        copy = shutil.copytree(folder, tmp_path / str(at))
        change(copy / "catalog.duckdb", at, data)
        if is_refused_or_complete(copy, before):
            refused.append(at)
    assert 0 in refused
    assert len(refused) >= 3


def test_a_catalog_cut_short_is_refused(rested, tmp_path):
    folder, before = rested
    size = (folder / "catalog.duckdb").stat().st_size
    refused = 0
    for keep in range(0, size, size // 10):
        copy = shutil.copytree(folder, tmp_path / str(keep))
        os.truncate(copy / "catalog.duckdb", keep)
        refused += is_refused_or_complete(copy, before)
    assert refused > 5


def test_an_older_copy_in_its_place_is_refused(copy):
    shutil.copy(copy / "catalog.duckdb", copy / "kept")
    store = open_store(copy)
    store.close()
    shutil.copy(copy / "kept", copy / "catalog.duckdb")
    with pytest.raises(StoreDamagedError, match="lacks the last 7 commits"):
        store.keys()


def test_a_catalog_that_is_gone_is_no_new_store(copy):
    (copy / "catalog.duckdb").unlink()
    (copy / "catalog.duckdb.wal").unlink()
    for create in (True, False):
        with pytest.raises(StoreDamagedError, match="is missing"):
            open_store(copy, create=create)
    assert not (copy / "catalog.duckdb").exists()


def test_a_seal_that_is_damaged_or_of_another_catalog_claims_nothing(copy, tmp_path):
    seal = copy / "catalog.seal"
    for data in (b"", b"garbage" * 10, bytes(48)):
        seal.write_bytes(data)
        store = open_store(copy)
        assert len(store.keys()) == 307
        store.close()
    shutil.copy(copy / "catalog.duckdb", tmp_path / "other")
    other = open_store(tmp_path / "new")
    other.close()
    shutil.copy(seal, tmp_path / "new" / "catalog.seal")
    assert other.keys() == []
