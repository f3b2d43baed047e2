"""Only what this user's key signed is executed; what was changed, cut short or removed is told apart."""

import os
import pickle
import stat
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from stepwell.kernel_runtime.errors import UntrustedValueError, ValueUnavailableError
from stepwell.kernel_runtime.store import store as store_module
from stepwell.kernel_runtime.store.store import open_store

SMALL = {"a": [1]}
LARGE = {"a": np.arange(50_000)}


def as_somebody_else(store, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key of somebody else"))
    return open_store(store.directory)


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.mark.parametrize("value", [SMALL, LARGE], ids=["inline", "file"])
def test_a_pickle_of_somebody_else_is_not_executed(store, tmp_path, monkeypatch, value):
    stored = as_somebody_else(store, tmp_path, monkeypatch).put(value, key="a", memo_key="m")
    with pytest.raises(UntrustedValueError, match="'a' was not written by you"):
        store.get(stored, key="a")


@pytest.mark.parametrize("value", [5, "x" * 100_000, pa.table({"a": range(50_000)})], ids=["inline", "text file", "arrow file"])
def test_data_of_somebody_else_can_be_loaded(store, tmp_path, monkeypatch, value):
    stored = as_somebody_else(store, tmp_path, monkeypatch).put(value, key="a", memo_key="m")
    assert store.get(stored, key="a") == value


def test_a_file_of_somebody_else_is_written_anew(store, tmp_path, monkeypatch):
    as_somebody_else(store, tmp_path, monkeypatch).put(LARGE, key="a", memo_key="m")
    assert store.get(store.put(LARGE, key="a", memo_key="m"), key="a")["a"][3] == 3


def test_an_inline_pickle_put_in_place_of_another_is_not_executed(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stored = store.put(SMALL, key="a", memo_key="m")
    forged = replace(stored, inline=b"\0\0" + pickle.dumps(Attack(), 5))
    for bad in (forged, replace(forged, signature=None), replace(stored, signature=stored.signature[:-1])):
        with pytest.raises(UntrustedValueError):
            store.get(bad, key="a")
    assert not (tmp_path / "attacked").exists()


def test_an_unsigned_codec_cannot_smuggle_a_pickle(store):
    stored = store.put(SMALL, key="a", memo_key="m")
    for codec in ("plain", "arrow-table", "polars-frame", "unknown"):
        with pytest.raises(ValueUnavailableError):
            store.get(replace(stored, codec=codec, signature=None), key="a")


@pytest.mark.parametrize("place", ["prefix", "signature", "header", "stream"])
def test_a_changed_byte_is_found(store, place):
    stored = store.put(LARGE, key="a", memo_key="m")
    path = store.directory / "objects" / stored.object_name
    data = bytearray(path.read_bytes())
    at = {"prefix": 0, "signature": 20, "header": 70, "stream": data.index(b"numpy", data.index(b"\x80\x05"))}[place]
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueUnavailableError):
        store.get(stored, key="a")


def test_a_file_of_another_value_is_found(store):
    one = store.put(LARGE, key="a", memo_key="m")
    two = store.put({"a": np.arange(60_000)}, key="a", memo_key="m")
    folder = store.directory / "objects"
    (folder / one.object_name).write_bytes((folder / two.object_name).read_bytes())
    with pytest.raises(ValueUnavailableError, match="another value"):
        store.get(one, key="a")


@pytest.mark.parametrize("keep", [0, 10, 64, 200, -1])
@pytest.mark.parametrize(
    "value", [LARGE, {"a": np.arange(500_000)}, pa.table({"a": range(50_000)})], ids=["read", "mapped", "arrow"]
)
def test_a_file_cut_short_is_unavailable_and_put_mends_it(store, keep, value):
    stored = store.put(value, key="a", memo_key="m")
    path = store.directory / "objects" / stored.object_name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueUnavailableError, match=r"damaged[^\n]*(truncated|header)"):
        store.get(stored, key="a")
    assert store.put(value, key="a", memo_key="m") == stored
    store.get(stored, key="a")


def test_a_missing_file_is_unavailable(store):
    stored = store.put(LARGE, key="a", memo_key="m")
    (store.directory / "objects" / stored.object_name).unlink()
    with pytest.raises(ValueUnavailableError, match="'a' is missing"):
        store.get(stored, key="a")


def test_a_value_that_was_not_stored_is_unavailable(store):
    stored = replace(store.put(1, key="a", memo_key="m"), inline=None)
    with pytest.raises(ValueUnavailableError, match="not stored"):
        store.get(stored, key="a")


def test_a_changed_inline_scalar_is_an_error_of_ours(store):
    stored = store.put(5, key="a", memo_key="m")
    for inline in (b"", b"\0\0", b"\0\0i", b"\0\0?", b"\1\0", b"\xff\xff\xff"):
        with pytest.raises(ValueUnavailableError):
            store.get(replace(stored, inline=inline), key="a")


def test_the_key_is_its_owners_alone_and_made_once(store, tmp_path):
    store.put(SMALL, key="a", memo_key="m")
    key = tmp_path / "key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    made = key.read_bytes()
    open_store(store.directory).put(SMALL, key="a", memo_key="m")
    assert key.read_bytes() == made
    assert [path.name for path in tmp_path.iterdir() if "key" in path.name] == ["key"]


def test_a_key_that_cannot_be_made_is_an_error_with_a_remedy(store, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "file" / "key"))
    with pytest.raises(store_module.StoreError, match="STEPWELL_KEY_FILE"):
        open_store(store.directory).put(SMALL, key="a", memo_key="m")
    assert store.get(open_store(store.directory).put(5, key="a", memo_key="m"), key="a") == 5
