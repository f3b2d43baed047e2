"""Stored bytes that are not what was stored: found, never used, and nothing else suffers."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
from corrupting import mutated

import stepwell
from stepwell.kernel_runtime.errors import SignatureDamagedError, ValueDamagedError, ValueUnavailableError
from stepwell.kernel_runtime.records.materializations import StoredValue
from stepwell.kernel_runtime.store.objects import checked, value_files
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import codecs
from stepwell.kernel_runtime.store.values.structure import StructureError, arrow_batches

LARGE = np.arange(1_000_000)
MEDIUM = np.arange(50_000)


@pytest.mark.attack(
    "A store contains a value file whose bytes were changed: flipped bits, swapped sections or false headers, with or without matching digests.",
    "The value is refused as damaged and computed again, or it can be read. No load crashes, hangs, or takes more than twice the memory of the value.",
)
def test_two_thousand_mutations_give_no_crash_no_hang_and_no_wrong_value(tmp_path):
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(lambda at: mutated(tmp_path, 0, at, at + 1000), (0, 1000)))
    assert [line for wrong, _ in parts for line in wrong] == []
    outcomes = parts[0][1] + parts[1][1]
    assert sum(outcomes.values()) > 1900
    assert min(outcomes.values()) > 50, outcomes


# -- what was checked in this boot -------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache directory of the test's own, and a process that has checked nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(checked, "_the_list", None)
    return tmp_path / "cache" / "stepwell" / "checked"


@pytest.fixture
def checks(monkeypatch):
    """How often all of a file was checked."""
    found = []
    real = value_files._check_contents
    monkeypatch.setattr(value_files, "_check_contents", lambda seen, **more: (found.append(1), real(seen, **more)))
    return found


def path_of(store, stored):
    return store.directory / "objects" / stored.object_name


def begin_again(monkeypatch):
    """Forget what this process knows, as a new one would."""
    monkeypatch.setattr(checked, "_the_list", None)


def flip(path, at=-5000):
    with path.open("rb+") as file:
        file.seek(at, os.SEEK_END)
        byte = file.read(1)
        file.seek(at, os.SEEK_END)
        file.write(bytes([byte[0] ^ 4]))


def settled():
    """Wait until a change of a file just now has another time than the next one."""
    time.sleep(2 * checked._COARSE / 1e9)


def test_a_large_file_that_was_written_here_is_never_read_to_be_checked(store, cache, checks, monkeypatch):
    stored = store.put(LARGE, key="a", memo_key="m")
    for _ in range(2):
        begin_again(monkeypatch)
        assert store.get(stored, key="a")[-1] == 999_999
    assert not checks


def test_a_small_file_is_checked_once(store, cache, checks, monkeypatch):
    stored = store.put(MEDIUM, key="a", memo_key="m")
    settled()
    for _ in range(3):
        begin_again(monkeypatch)
        store.get(stored, key="a")
    assert len(checks) == 1
    store.get(stored, key="a", verify="full")
    assert len(checks) == 2


@pytest.mark.parametrize("value", [MEDIUM, LARGE], ids=["small", "large"])
def test_a_file_that_changes_is_checked_again_also_where_its_time_is_set_back(store, cache, value):
    stored = store.put(value, key="a", memo_key="m")
    settled()
    store.get(stored, key="a")
    path = path_of(store, stored)
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ValueDamagedError, match="contents changed"):
        store.get(stored, key="a")
    assert not path.exists()
    assert len(list((store.directory / "damaged").iterdir())) == 1


def test_everything_is_checked_again_after_a_start_of_the_machine(store, cache, checks, monkeypatch):
    stored = store.put(LARGE, key="a", memo_key="m")
    settled()
    monkeypatch.setattr(checked, "boot_id", lambda: "the next boot")
    begin_again(monkeypatch)
    store.get(stored, key="a")
    begin_again(monkeypatch)
    store.get(stored, key="a")
    assert len(checks) == 1
    assert sorted(path.name for path in cache.iterdir()) == sorted([checked.boot_id(), *cache_of_the_first_boot(cache)])


def cache_of_the_first_boot(cache):
    return [path.name for path in cache.iterdir() if path.name != "the next boot"]


def test_a_zeroed_end_after_a_power_loss_is_seen(store, cache, monkeypatch):
    stored = store.put(LARGE, key="a", memo_key="m")
    monkeypatch.setattr(checked, "boot_id", lambda: "the next boot")
    with path_of(store, stored).open("rb+") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(bytes(4096))
    with pytest.raises(ValueDamagedError):
        store.get(stored, key="a")


@pytest.mark.attack(
    "A store contains a list which says that its value files were already checked.",
    "The list is ignored: Stepwell uses only the list in the user's cache directory, which is bound to the user's key.",
)
def test_witnesses_of_one_key_are_none_of_another(store, cache, checks, tmp_path, monkeypatch):
    value = "x" * 5_000_000
    stored = store.put(value, key="a", memo_key="m")
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "another key"))
    assert open_store(store.directory).get(stored, key="a") == value
    assert len(checks) == 1


def test_a_list_of_witnesses_that_others_can_write_is_not_used(store, cache, checks, monkeypatch):
    stored = store.put(LARGE, key="a", memo_key="m")
    cache.chmod(0o777)
    begin_again(monkeypatch)
    store.get(stored, key="a")
    assert len(checks) == 1


@pytest.mark.parametrize("obstacle", ["a file", "a link", "no home"])
def test_without_a_usable_cache_directory_each_process_checks_once(store, cache, checks, monkeypatch, obstacle):
    theirs = store.directory.with_name("theirs")
    if obstacle == "a file":
        cache.parent.mkdir(parents=True)
        cache.write_bytes(b"")
    elif obstacle == "a link":
        theirs.mkdir()
        cache.parent.mkdir(parents=True)
        cache.symlink_to(theirs)
    else:
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    stored = store.put(MEDIUM, key="a", memo_key="m")
    settled()
    for _ in range(3):
        store.get(stored, key="a")
    assert len(checks) == 1
    assert not list(theirs.glob("*"))


def test_what_one_process_checked_another_does_not_check_again(store, cache, checks, tmp_path):
    stored = store.put(MEDIUM, key="a", memo_key="m")
    settled()
    program = (
        "import sys; from stepwell.kernel_runtime.store.store import open_store;\n"
        "store = open_store(sys.argv[1]); store.objects.read(*sys.argv[2:5], key='a')\n"
        "parts = store.objects.read(*sys.argv[2:5], key='a'); store.objects.mark_checked(sys.argv[2], parts.unchecked)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(store.directory), stored.object_name, stored.digest, stored.codec],
        check=True,
        cwd=Path(__file__).parents[2],
    )
    store.get(stored, key="a")
    assert not checks


def test_a_long_list_of_witnesses_is_begun_again(store, cache, checks, monkeypatch):
    monkeypatch.setattr(checked, "_LARGEST", 100)
    stored = [store.put(LARGE + each, key="a", memo_key="m") for each in range(9)]
    begin_again(monkeypatch)
    store.get(stored[-1], key="a")
    assert not checks
    store.get(stored[0], key="a")
    assert len(checks) == 1
    (path,) = cache.iterdir()
    assert path.stat().st_size < 200


# -- structure ---------------------------------------------------------------------------------------------------------


TEXTS = pa.array(["x" * 100_000, "y" * 23_456])
WHERE = (123_456).to_bytes(4, "little")
"""The last offset of the texts, in what is stored of them."""


def sparse(form, **changed):
    value = getattr(scipy.sparse, form)(np.eye(3))
    for name, numbers in changed.items():
        setattr(value, name, numbers)
    return value


def categories():
    value = pd.Categorical(["a", "b"])
    value._ndarray[:] = 100
    return value


def index():
    value = pd.MultiIndex.from_arrays([["a", "b"], [1, 2]])
    codes = value.codes[0]
    codes.flags.writeable = True
    codes[:] = 100
    return value


OUTSIDE = {
    "arrow array": lambda: TEXTS,
    "arrow table": lambda: pa.table({"a": TEXTS}),
    "polars": lambda: pl.DataFrame({"a": [list(range(123_456))]}),
    "arrow in a list": lambda: [{"a": TEXTS}],
    "pandas text": lambda: pd.DataFrame({"a": pd.Series(pd.arrays.ArrowExtensionArray(pa.chunked_array([TEXTS])))}),
    "csr": lambda: sparse("csr_matrix", indices=np.array([0, 1, 900_000_000], "i4")),
    "csc starts": lambda: [sparse("csc_array", indptr=np.array([0, 1, 2, 900_000_000], "i4"))],
    "bsr": lambda: sparse("bsr_array", indices=np.array([0, 1, -7], "i4")),
    "coo": lambda: sparse("coo_array", coords=(np.array([0, 1, -900_000_000]), np.array([0, 1, 2]))),
    "sparse in an array": lambda: np.array([None, sparse("csr_matrix", indptr=np.array([0, 2, 1, 3], "i4"))], dtype=object),
    "categories": categories,
    "categories in a frame": lambda: pd.DataFrame({"a": pd.Series(categories())}),
    "codes of an index": index,
    "index of a frame": lambda: pd.DataFrame({"a": [1, 2]}, index=index()),
}


@pytest.mark.attack(
    "A stored table, frame or sparse matrix contains offsets or indices that point outside of its data.",
    "The value is refused as damaged before its data are read, even if it is signed with the user's key.",
)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_points_outside_is_damaged_whoever_signed_it(store, name):
    encoded = codecs.encode(OUTSIDE[name](), key="a")
    buffers = [memoryview(bytes(each).replace(WHERE, (2_000_000_000).to_bytes(4, "little"))) for each in encoded.buffers]
    stream = encoded.stream.replace(WHERE, (2_000_000_000).to_bytes(4, "little"))
    crafted = replace(encoded, stream=stream, buffers=buffers)
    found, written = store.objects.write(crafted, key="a", memo_key="m")
    in_a_file = StoredValue(crafted.codec, found, crafted.size, None, written, None, "", "")
    inline = codecs.pack(crafted)
    signature = store.signer.sign((crafted.codec.encode(), inline))
    digest = codecs.inline_digest(crafted.codec, stream, buffers)
    in_a_row = StoredValue(crafted.codec, digest, crafted.size, inline, None, signature, "", "")
    for stored in (in_a_row, in_a_file):
        with pytest.raises(ValueDamagedError, match="damaged"):
            store.get(stored, key="a")


@pytest.mark.attack(
    "A stored Arrow stream is compressed and states a false size.", "The stream is refused before it is unpacked."
)
@pytest.mark.parametrize("compression", ["lz4", "zstd"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_a_compressed_stream_is_refused_before_it_is_unpacked(compression, dictionary):
    column = pa.array(["x" * 1000] * 1000)
    table = pa.table({"a": column.dictionary_encode() if dictionary else column})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    data = memoryview(sink.getvalue())
    with pytest.raises(StructureError, match="compressed"):
        arrow_batches(data)
    for codec in ("arrow-table", "polars-frame"):
        with pytest.raises(ValueDamagedError):
            codecs.decode(codec, b"", [data], key="a")


def test_a_false_claim_that_a_column_is_sorted_is_not_believed(store):
    encoded = codecs.encode(pl.DataFrame({"a": [3, 1, 2]}), key="a")
    frame = codecs.decode("polars-frame", b"a", encoded.buffers, key="a")
    assert frame["a"].max() == 3
    assert not frame["a"].flags["SORTED_ASC"]
    assert codecs.decode("polars-frame", b"a", codecs.encode(pl.DataFrame({"a": [None, 1, 2]}), key="a").buffers, key="a")[
        "a"
    ].flags["SORTED_ASC"]


def test_numbers_that_arrow_cannot_check_are_signed(store):
    for value in (pl.DataFrame({"a": pl.Series([1], dtype=pl.Int128)}), pl.Series([[1]], dtype=pl.List(pl.UInt128))):
        stored = store.put(value, key="a", memo_key="m")
        assert stored.codec == "pickle"
        assert store.get(stored, key="a").equals(value)


def test_a_file_that_is_longer_than_its_header_says_is_damaged(store):
    stored = store.put(MEDIUM, key="a", memo_key="m")
    with path_of(store, stored).open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueDamagedError, match="longer"):
        store.get(stored, key="a")


def test_a_signature_that_was_changed_is_damage_not_somebody_elses(store):
    stored = store.put(MEDIUM, key="a", memo_key="m")
    flip(path_of(store, stored), at=-path_of(store, stored).stat().st_size + 50)
    with pytest.raises(SignatureDamagedError, match="damaged: it differs from the value that you signed"):
        store.get(stored, key="a")
    assert not store.objects.holds(stored)


# -- what does not load counts as missing --------------------------------------------------------------------------------

LIAR = """
import os, sys, stepwell
class Moody:
    def __init__(self):
        self.mood = 1
    def __setstate__(self, state):
        if os.path.exists("bad"):
            raise ValueError("not today")
        self.__dict__ = state
@stepwell.asset
def v():
    return {"v": Moody(), "data": bytearray(SIZE)}
@stepwell.asset
def w(v):
    return type(v["v"]).__name__
def statuses(*what):
    return [step.status for step in stepwell.materialize(list(what), store=sys.argv[1]).steps]
"""


@pytest.mark.parametrize("size", [10, 200_000], ids=["row", "file"])
def test_a_value_that_failed_to_load_is_not_reused_until_it_loads_again(python, store_dir, tmp_path, size):
    def run(what):
        return python(LIAR.replace("SIZE", str(size)) + what, store_dir).split("\n")[0]

    assert run("print(statuses(v))") == "['executed']"
    (tmp_path / "bad").touch()
    load = "try: stepwell.load('v', store=sys.argv[1])\nexcept stepwell.StepwellError as e: print(type(e).__name__)\nelse: print('loaded')"
    assert run(load) == "ValueUnavailableError"
    # Another process: it counts as missing, and is not stored again as long as it does not come back.
    assert "reused" not in run("try: print(statuses(v))\nexcept stepwell.StepwellError as e: print(type(e).__name__)")
    (tmp_path / "bad").unlink()
    assert run("print(statuses(v, w))") == "['reused', 'executed']"
    assert run(load) == "loaded"
    assert not list((store_dir / "damaged").glob("*.failed"))


def test_a_damaged_row_is_computed_again(tmp_path):
    store = open_store(tmp_path / "store")

    @stepwell.asset
    def v():
        return [1, 2]

    @stepwell.asset
    def w(v):
        return sum(v)

    def statuses(*what):
        return [step.status for step in stepwell.materialize(list(what), store=store).steps]

    assert statuses(v) == ["executed"]
    damage = "UPDATE {0}.materializations SET inline = inline || '\\x00'::BLOB"
    store.catalog.change(lambda connection, name: connection.execute(damage.format(name)))
    assert statuses(v, w) == ["executed", "executed"]
    assert stepwell.load("v", store=store) == [1, 2]
    store.catalog.change(lambda connection, name: connection.execute(damage.format(name)))
    with pytest.raises(ValueUnavailableError):
        stepwell.load("v", store=store)
    assert statuses(v) == ["executed"]
    assert stepwell.load("v", store=store) == [1, 2]
