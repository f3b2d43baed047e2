"""A value file, or the way to one, that somebody crafted: never executed, never followed out of ``objects/``, always one error."""

import json
import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stepwell.kernel_runtime.errors import UntrustedStoreError, UntrustedValueError, ValueUnavailableError
from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.objects.header import PREFIX, read_header, read_prefix
from stepwell.kernel_runtime.store.objects.value_files import Objects
from stepwell.kernel_runtime.store.signing import Signer
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values.codecs import Encoded

pytestmark = pytest.mark.attack(
    "A pack or a value file was crafted: its names lead outside of the store, its digests are wrong, or another key signed it.",
    "The whole pack or file is refused, and nothing outside of the store is written.",
)

LARGE = {"a": np.arange(50_000)}


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.fixture
def stored(store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return store.put(LARGE, key="a", memo_key="m")


def path_of(store, stored):
    return store.directory / "objects" / stored.object_name


def assert_refused(store, stored, error=ValueUnavailableError, **more):
    with pytest.raises(error, **more):
        store.get(stored, key="a")
    # What is damaged was set aside.
    with pytest.raises(ValueUnavailableError):
        store.get(stored, key="a", verify="full")
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "ab/../../key",
        "",
        ".",
        "ab/" + "0" * 64 + ".pickle\0",
        "x" * 5000,
        "ab/" + "é" * 64 + ".pickle",
    ],
)
def test_a_row_cannot_name_a_file_outside_objects(store, stored, tmp_path, name):
    (store.directory / "objects" / "key").write_bytes(b"x")
    assert_refused(store, replace(stored, object_name=name))
    assert store.objects.is_missing(name)


def test_a_row_cannot_name_the_file_of_another_value_or_codec(store, stored):
    other = store.put({"a": np.arange(60_000)}, key="b", memo_key="m")
    assert_refused(store, replace(stored, object_name=other.object_name))
    assert_refused(store, replace(stored, codec="plain"))
    # A row that agrees with another file of ours gives that file's value: which value a row means is no matter of trust.
    swapped = replace(stored, object_name=other.object_name, digest=other.digest)
    assert len(store.get(swapped, key="a")["a"]) == 60_000


@pytest.mark.parametrize("which", ["file", "folder", "objects"])
def test_no_link_is_followed_for_reading(store, stored, tmp_path, which):
    path = path_of(store, stored)
    link = {"file": path, "folder": path.parent, "objects": path.parent.parent}[which]
    link.rename(tmp_path / "elsewhere")
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UntrustedStoreError, match="contains a link"):
        store.get(stored, key="a")


@pytest.mark.parametrize("which", ["folder", "objects"])
def test_no_link_is_followed_for_writing(store, stored, tmp_path, which):
    path = path_of(store, stored)
    link = {"folder": path.parent, "objects": path.parent.parent}[which]
    shutil.rmtree(link)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UntrustedStoreError, match="contains a link"):
        store.put(LARGE, key="a", memo_key="m")
    assert not list((tmp_path / "elsewhere").rglob("*"))
    assert not list((store.directory / "tmp").iterdir())


def test_a_pipe_in_the_place_of_a_file_blocks_nobody(store, stored):
    path_of(store, stored).unlink()
    os.mkfifo(path_of(store, stored))
    with pytest.raises(UntrustedStoreError, match="contains a pipe"):
        store.get(stored, key="a")


def test_a_file_with_a_hole_of_a_terabyte_is_damaged_and_takes_no_memory(store, stored):
    os.truncate(path_of(store, stored), 1 << 40)
    with pytest.raises(ValueUnavailableError, match="longer than its header says"):
        store.objects.verify(stored.object_name)
    assert_refused(store, stored, match="longer than its header says")


def test_folders_that_are_too_deep_are_left_alone(store, stored):
    place = store.directory / "tmp"
    with Folders(place) as enter:
        for _ in range(700):
            enter("d")
    for path in (place / "d", place):
        os.utime(path, (1, 1))
    housekeeping.collect(store)
    assert (place / "d" / "d").exists()
    assert store.get(stored, key="a")["a"][5] == 5
    shutil.rmtree(place)


class Folders:
    """Makes folders within folders that no path can name."""

    def __init__(self, path):
        self.descriptor = os.open(path, os.O_RDONLY)

    def __enter__(self):
        return self.enter

    def __exit__(self, *_):
        os.close(self.descriptor)

    def enter(self, name):
        os.mkdir(name, dir_fd=self.descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=self.descriptor)
        os.close(self.descriptor)
        self.descriptor = below


def crafted(store, stored, header, stream=b"", prefix=None):
    """Write a file under the name of `stored` with some header."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path_of(store, stored).write_bytes((prefix or PREFIX.pack(b"STEPWELL", 2, len(data), b"")) + data + stream)


HEADERS = {
    "no JSON": b"{",
    "deep": b"[" * 200_000,
    "a list": [1],
    "no sizes": {"codec": "pickle", "stream": [], "buffers": []},
    "a huge size": {"codec": "pickle", "stream": [1 << 70, "0" * 64], "buffers": []},
    "a negative size": {"codec": "pickle", "stream": [-5, "0" * 64], "buffers": []},
    "negative buffers": {"codec": "pickle", "stream": [5, "0" * 64], "buffers": [[-64, "0" * 64, True]]},
    "a size that is true": {"codec": "pickle", "stream": [True, "0" * 64], "buffers": []},
    "floats": {"codec": "pickle", "stream": [5.0, "0" * 64], "buffers": []},
    "a codec that is a list": {"codec": ["pickle"], "stream": [5, "0" * 64], "buffers": []},
    "names that are numbers": {"codec": "pickle", "stream": [5, 5], "buffers": [[1, 2, 3]]},
    "not UTF-8": b"\xff\xfe\xff",
    "empty": b"",
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_crafted_header_is_one_error(store, stored, name):
    crafted(store, stored, HEADERS[name])
    assert_refused(store, stored, match="damaged")


@pytest.mark.parametrize("prefix", [PREFIX.pack(b"STEPWELL", 2, 0xFFFFFFFF, b""), PREFIX.pack(b"STEPWELL", 9, 5, b""), b"x" * 64])
def test_a_crafted_prefix_is_one_error(store, stored, prefix):
    crafted(store, stored, b"{}", prefix=prefix)
    assert_refused(store, stored, match=r"damaged|another version of Stepwell")


@pytest.mark.parametrize("key", ["unsigned", "another key", "cut", "zeros"])
def test_a_crafted_pickle_is_not_executed(store, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    stream = pickle.dumps([Attack(), b"x" * 100_000], 5)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "another key"))
    found, name = Objects(store.folder, Signer()).write(Encoded("pickle", stream), key="a", memo_key="m")
    path = store.directory / "objects" / name
    data = bytearray(path.read_bytes())
    if key != "another key":
        data[16:56] = {"unsigned": b"\0" * 40, "cut": data[16:30] + b"\0" * 26, "zeros": b"\0" * 40}[key]
    path.write_bytes(data)
    stored = replace(store.put([1], key="a", memo_key="m"), inline=None, object_name=name, digest=found)
    assert_refused(store, stored, UntrustedValueError, match="not written by you")


def test_a_signature_is_not_one_over_another_stream(store, stored):
    """The whole beginning of a good file before a stream of the attacker's."""
    path = path_of(store, stored)
    data = path.read_bytes()
    length, _ = read_prefix(data)
    size, _ = read_header(data[PREFIX.size : PREFIX.size + length]).stream
    attack = pickle.dumps(Attack(), 5)
    at = data.index(b"\x80\x05", PREFIX.size + length)
    path.write_bytes(data[:at] + attack.ljust(size, b".") + data[at + size :])
    assert_refused(store, stored, match="contents changed")


def test_streams_swapped_between_two_files_are_found(store, stored):
    other = store.put({"b": np.arange(50_001)}, key="b", memo_key="m")
    one, two = path_of(store, stored), path_of(store, other)
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(a[:56] + b[56:])
    two.write_bytes(b[:56] + a[56:])
    for each in (stored, other):
        with pytest.raises(ValueUnavailableError):
            store.get(each, key="a")


def test_changed_data_is_found_and_put_mends_it(store, stored):
    path = path_of(store, stored)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    for verify in ("signed", "full"):
        path.write_bytes(data)
        with pytest.raises(ValueUnavailableError, match="contents changed"):
            store.objects.verify(stored.object_name)
        with pytest.raises(ValueUnavailableError, match="contents changed"):
            store.get(stored, key="a", verify=verify)
        assert not path.exists()
    assert store.put(LARGE, key="a", memo_key="m") == stored
    store.get(stored, key="a", verify="full")
    assert store.objects.verify(stored.object_name).digest == stored.digest


def test_a_stream_that_changes_after_it_was_checked_is_not_executed(store, tmp_path, monkeypatch):
    """Whoever can write a mapped file could change it between check and execution: what is executed is a copy."""
    monkeypatch.chdir(tmp_path)
    stored = store.put([b"x" * 3_000_000, np.arange(400_000)], key="a", memo_key="m")
    parts = store.objects.read(stored.object_name, stored.digest, "pickle", key="a")
    path = path_of(store, stored)
    with path.open("r+b") as file:
        file.write(b"\0" * 3_000_000)
    assert pickle.loads(parts.stream, buffers=parts.buffers)[0] == b"x" * 3_000_000


@pytest.mark.parametrize(
    ("mode", "refused"), [(0o600, False), (0o400, False), (0o640, False), (0o644, True), (0o602, True), (0o660, True)]
)
def test_a_key_that_others_can_read_or_change_is_refused(store, tmp_path, mode, refused):
    store.put([1], key="a", memo_key="m")
    (tmp_path / "key").chmod(mode)
    again = open_store(store.directory)
    if not refused:
        again.put([1], key="a", memo_key="m")
        return
    from stepwell.kernel_runtime.errors import StoreError

    with pytest.raises(StoreError, match="not private") as caught:
        again.put([1], key="a", memo_key="m")
    assert "chmod 600" in caught.value.remedy
