"""How values lie in their files: large parts beside the stream, each with its digest, mapped and not copied."""

import os
import pickle
import resource
import threading

import blake3
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from stepwell.kernel_runtime.errors import StoreFullError
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.header import PREFIX, read_header, read_prefix
from stepwell.kernel_runtime.store.objects.value_files import Objects
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.values.codecs import Encoded, encode


def through(store, value):
    return store.get(store.put(value, key="a", memo_key="m"), key="a", verify="full")


def mixed(rows):
    numbers = np.arange(rows)
    return pd.DataFrame(
        {
            "i": numbers,
            "j": numbers * 2,
            "f": numbers / 3,
            "t": pd.Timestamp("2026-01-01", tz="Europe/Vienna") + pd.to_timedelta(numbers, unit="s"),
            "d": pd.to_timedelta(numbers, unit="ms"),
            "s": pd.Series([f"text {number}" for number in range(rows)], dtype="str"),
            "c": pd.Categorical.from_codes(numbers % 3, ["x", "y", "z"]),
            "n": pd.array(numbers, dtype="Int32"),
        }
    )


def test_no_column_of_a_frame_is_copied_into_the_stream():
    encoded = encode(mixed(20_000), key="a")
    assert len(encoded.stream) < 10_000
    assert encoded.size > 20_000 * 8 * 6


def test_columns_of_one_type_and_slices_are_beside_the_stream_too(store):
    wide = pd.DataFrame({f"c{at}": np.arange(50_000) + at for at in range(5)}).copy()
    for frame in (wide[10:40_000], wide[::2], wide[["c1", "c3"]]):
        encoded = encode(frame, key="a")
        assert len(encoded.stream) < 10_000
        assert_frame_equal(through(store, frame), frame, check_exact=True, check_flags=True)


DATES = [
    np.arange("2026-01-01", "2046-01-01", dtype="M8[D]"),
    np.arange(10_000).astype("m8[ns]"),
    np.arange(10_000).astype(">M8[us]"),
    np.arange(10_000).astype("M8[25s]"),
    np.full(10_000, "NaT", dtype="M8[ns]"),
    np.asfortranarray(np.arange(10_000).astype("M8[s]").reshape(100, 100)),
    np.arange(20_000).astype("M8[s]")[::2],
    np.arange(10_000).astype("M8[s]").reshape(100, 100).T,
    np.arange(20_000.0)[::2],
    np.arange(20_000.0)[::-1],
    np.arange(10_000).astype("M8[s]").reshape(10, 10, 100)[:, 3],
    np.zeros(10_000, dtype="M8"),
]


@pytest.mark.parametrize("at", range(len(DATES)))
def test_dates_and_what_is_not_contiguous_come_back_as_pickle_brings_them(store, at):
    value = DATES[at]
    back, plain = through(store, value), pickle.loads(pickle.dumps(value, 5))
    assert back.dtype == value.dtype
    assert (back.flags.c_contiguous, back.flags.f_contiguous) == (plain.flags.c_contiguous, plain.flags.f_contiguous)
    np.testing.assert_array_equal(back, value)
    assert back.flags.writeable


def test_an_array_that_is_there_twice_is_one_array(store):
    dates = np.arange(10_000).astype("M8[s]")
    strided = np.arange(20_000)[::2]
    back = through(store, [dates, dates, strided, strided])
    assert back[0] is back[1]
    assert back[2] is back[3]


def test_read_only_dates_come_back_read_only(store):
    value = np.arange(10_000).astype("M8[s]")
    value.flags.writeable = False
    assert not through(store, value).flags.writeable


def test_small_buffers_are_in_the_stream_and_stay_what_they_were(store):
    fixed = np.arange(10)
    fixed.flags.writeable = False
    value = [np.arange(10) for _ in range(10_000)] + [fixed, np.empty((0, 3)), bytearray(b"x")]
    assert len(encode(value, key="a").buffers) == 0
    back = through(store, value)
    assert back[7].flags.writeable
    assert not back[-3].flags.writeable
    assert back[-2].shape == (0, 3)
    back[0][0] = 5
    assert store.get(store.put(value, key="a", memo_key="m"), key="a")[0][0] == 0


def test_ten_thousand_buffers_are_one_file(store):
    value = [np.full(600, number) for number in range(10_000)]
    back = through(store, value)
    assert all((one == two).all() for one, two in zip(back[::997], value[::997], strict=True))
    assert housekeeping.sizes(store)["objects"] == 1


sizes = st.sampled_from([0, 1, 63, 64, 65, 4095, 4096, 5000, 1 << 20])


@given(st.binary(max_size=300), st.lists(st.tuples(sizes, st.booleans()), max_size=6))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_part_is_where_the_header_says(tmp_path, stream, buffers):
    parts = [os.urandom(size) if readonly else bytearray(os.urandom(size)) for size, readonly in buffers]
    objects = Objects(Folder(tmp_path / "store"), Signer())
    found, name = objects.write(Encoded("arrow-table", stream, [memoryview(part) for part in parts]), key="k", memo_key="m")
    data = (tmp_path / "store" / "objects" / name).read_bytes()
    length, _ = read_prefix(data)
    header = read_header(data[PREFIX.size : PREFIX.size + length])
    assert header.digest == found
    assert header.metadata["key"] == "k"
    for (start, end), part in zip(header.places(length), [stream, *parts], strict=True):
        assert start % 64 == 0
        assert data[start:end] == part
        assert blake3.blake3(part).hexdigest() in data[:start].decode(errors="replace")
    back = objects.read(name, found, "arrow-table", key="a", full=True)
    assert [bytes(buffer) for buffer in back.buffers] == parts
    assert [buffer.readonly for buffer in back.buffers] == [readonly for _, readonly in buffers]


def test_writes_that_end_early_are_gone_on_with(store, monkeypatch):
    """Every system may write less than it was given; the largest write of Linux is 2 GiB."""
    real = os.writev

    def short(descriptor, parts):
        most = max(1, sum(map(len, parts)) // 3)
        return real(descriptor, [b"".join(parts)[:most]])

    monkeypatch.setattr(os, "writev", short)
    value = {"a": np.arange(10_000_000), "b": "x" * 70_000, "c": np.arange(3)}
    back = through(store, value)
    np.testing.assert_array_equal(back["a"], value["a"])


def test_a_large_value_is_mapped_and_only_what_is_touched_takes_memory(store):
    value = np.zeros(16_000_000)
    stored = store.put(value, key="a", memo_key="m")
    del value

    def private():
        with open("/proc/self/smaps_rollup") as file:  # noqa: PTH123
            found = {line.split(":")[0]: line.split()[1] for line in file if line[0] != "0"}
        return int(found["Private_Dirty"]) * 1024

    store.get(stored, key="a")
    before = private()
    back = store.get(stored, key="a")
    assert back.base is not None
    assert private() - before < 20_000_000
    back[:4096] = 1
    assert private() - before < 30_000_000
    assert store.get(stored, key="a")[0] == 0


def test_a_full_disk_leaves_no_rest_and_the_thread_beside_ends(store):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8_000_000, before[1]))
    try:
        with pytest.raises(StoreFullError):
            store.put(np.arange(8_000_000), key="a", memo_key="m")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list((store.directory / "tmp").iterdir())
    assert not list(store.directory.rglob("*.pickle"))
    assert through(store, np.arange(100_000))[5] == 5


def test_many_threads_store_the_same_value_at_once(store):
    value = np.arange(1_000_000)
    found, errors = [], []

    def put():
        try:
            found.append(store.put(value, key="a", memo_key="m"))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=put) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(found)) == 1
    assert through(store, value)[-1] == 999_999


def test_a_buffer_that_is_not_contiguous_is_refused_with_its_reason(store):
    from stepwell.kernel_runtime.errors import UnstorableValueError

    class Strided:
        def __reduce_ex__(self, protocol):
            return bytes, (pickle.PickleBuffer(memoryview(bytes(100_000))[::2]),)

    with pytest.raises(UnstorableValueError, match="Strided"):
        store.put(Strided(), key="a", memo_key="m")
