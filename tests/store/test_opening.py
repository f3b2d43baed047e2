"""A store that cannot be used is one error of our own, and nothing on the disk is changed."""

import duckdb
import pytest

from stepwell.kernel_runtime.errors import StoreDamagedError, StoreError, StoreFormatError, StoreNotWritableError
from stepwell.kernel_runtime.store.store import open_store


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def opened_with(error, path, match, **more):
    before = contents(path.parent)
    with pytest.raises(error, match=match) as caught:
        open_store(path, **more)
    assert contents(path.parent) == before
    assert str(caught.value).count("\n") <= 2
    assert caught.value.remedy


@pytest.fixture
def catalog(tmp_path):
    folder = tmp_path / "project" / "store"
    folder.mkdir(parents=True)
    return folder / "catalog.duckdb"


def test_a_directory_below_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    opened_with(StoreNotWritableError, tmp_path / "file" / "store", "cannot be used")


def test_a_path_that_is_a_file_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    opened_with(StoreNotWritableError, tmp_path / "file", "cannot be used")


def test_a_read_only_file_system_cannot_be_written():
    with pytest.raises(StoreNotWritableError, match="/proc/stepwell"):
        open_store("/proc/stepwell")


def test_a_newer_format_is_left_alone(catalog):
    open_store(catalog.parent).close()
    with duckdb.connect(str(catalog)) as connection:
        connection.execute("UPDATE meta SET format = 99")
    opened_with(StoreFormatError, catalog.parent, "newer version of Stepwell \\(format 99")


@pytest.mark.parametrize("with_lock", [True, False])
@pytest.mark.parametrize("data", [b"", b"garbage", b"garbage" * 10_000])
def test_a_damaged_catalog_is_left_alone(catalog, data, with_lock):
    catalog.write_bytes(data)
    if with_lock:
        (catalog.parent / "catalog.lock").touch()
        (catalog.parent / "want.lock").touch()
    opened_with(StoreDamagedError, catalog.parent, "cannot be read")


def test_somebody_elses_database_is_left_alone(catalog):
    with duckdb.connect(str(catalog)) as connection:
        connection.execute("CREATE TABLE mine AS SELECT 1 AS x")
    opened_with(StoreDamagedError, catalog.parent, "not the catalog of a Stepwell store")


def test_without_create_there_must_be_a_store(tmp_path):
    opened_with(StoreError, tmp_path / "none", "there is no store", create=False)
    opened_with(StoreError, tmp_path, "there is no store", create=False)
    open_store(tmp_path / "store").close()
    assert open_store(tmp_path / "store", create=False).keys() == []


def test_a_catalog_open_in_another_program_is_named_as_that(catalog):
    import subprocess
    import sys

    open_store(catalog.parent).close()
    program = f"import duckdb; c = duckdb.connect({str(catalog)!r}); print('open', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(StoreError, match="open in another program"):
            open_store(catalog.parent)
        other.communicate(b"\n", timeout=240)
    assert open_store(catalog.parent).keys() == []


def test_a_name_with_a_quote_is_a_name(tmp_path):
    store = open_store(tmp_path / "it's a store")
    assert store.keys() == []
    store.close()


def test_stores_that_are_opened_and_let_go_at_once_are_whole(tmp_path):
    """DuckDB keeps a file that is detached while another thread looks through all that are attached."""
    from concurrent.futures import ThreadPoolExecutor

    def opened(number):
        store = open_store(tmp_path / str(number))
        store.close()
        return open_store(tmp_path / str(number), create=False).keys()

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(opened, range(36))) == [[]] * 36
