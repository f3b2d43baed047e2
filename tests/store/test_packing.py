"""A pack is one file of checked data: what is wrong in it is found before anything is imported, and nothing in it is executed."""

import json
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stepwell.kernel_runtime.errors import (
    PackError,
    UnknownKeyError,
    UntrustedValueError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.records.materializations import CodePart, CodeVersion
from stepwell.kernel_runtime.store import packs, trust
from stepwell.kernel_runtime.store.store import open_store
from tests.store.rows import made, record

VALUES = {"frame": {"a": np.arange(50_000)}, "small": [1, 2], "table": pa.table({"x": range(50_000)}), "number": 5}


class Attack:
    def __reduce__(self):
        return os.mkdir, ("attacked",)


@pytest.fixture
def packed(store, tmp_path, monkeypatch):
    """A pack of four values, and a store of somebody else who gets it."""
    monkeypatch.chdir(tmp_path)
    for key, value in VALUES.items():
        code = CodeVersion(f"code of {key}", (CodePart(key, "body", "d", "source", "cell 1"),))
        record(store, made(store, key, value, code=code.digest), code=code).wait()
    packs.write_pack(store, list(VALUES), tmp_path / "out.zip")
    return tmp_path / "out.zip"


@pytest.fixture
def theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "their key"))
    store = open_store(tmp_path / "theirs")
    yield store
    store.close()


def contents(store):
    files = [str(path) for path in store.directory.rglob("*") if path.is_file() and "catalog" not in path.name]
    return sorted(files), store.keys()


def assert_refused(store, path, match):
    before = contents(store)
    for step in (lambda: trust.inspect_pack(path, store.signer), lambda: trust.import_pack(store, path)):
        with pytest.raises(PackError, match=match) as caught:
            step()
        assert caught.value.remedy
    assert contents(store) == before
    assert not os.path.exists("attacked")  # noqa: PTH110


def test_what_was_packed_can_be_loaded_by_who_trusts_it(packed, theirs):
    offer = trust.inspect_pack(packed, theirs.signer)
    assert theirs.keys() == []
    assert not offer.own
    assert {(value.key, value.executes) for value in offer.values} == {
        ("frame", True), ("small", True), ("table", False), ("number", False),
    }  # fmt: skip
    trust.import_pack(theirs, packed)
    for key, value in VALUES.items():
        (row,) = theirs.current(key)
        back = theirs.get(row.materialization.value, key=key, verify="full")
        assert back["a"].tolist() == value["a"].tolist() if key == "frame" else back == value
        assert theirs.codes([f"code of {key}"]).get(f"code of {key}").parts[0].text == "source"
    assert trust.foreign_values(theirs, None).items == ()
    assert theirs.snapshot(["frame"], ["frame"], ["code of frame"]).by_memo_key["m1"]
    assert theirs.snapshot(["frame", "small"], [], []).foreign == {}
    assert not list((theirs.directory / "tmp").iterdir())


def test_the_same_values_make_the_same_file_and_no_secret_is_in_it(store, packed, tmp_path):
    packs.write_pack(store, reversed(list(VALUES)), tmp_path / "again.zip")
    assert packed.read_bytes() == (tmp_path / "again.zip").read_bytes()
    assert (tmp_path / "key").read_bytes() not in packed.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir() if ".zip" in path.name) == ["again.zip", "out.zip"]


def test_importing_twice_adds_nothing_and_moves_nothing(packed, theirs):
    mine = made(theirs, "number", 6)
    record(theirs, mine).wait()
    for _ in range(2):
        trust.import_pack(theirs, packed)
    assert len(theirs.history("frame")) == 1
    assert len(theirs.history("number")) == 2
    (row,) = theirs.current("number")
    assert theirs.get(row.materialization.value, key="number") == 6


def test_a_shared_key_needs_no_question(packed, tmp_path):
    again = open_store(tmp_path / "mine too")
    assert trust.inspect_pack(packed, again.signer).own
    trust.import_pack(again, packed)
    assert again.keys() == sorted(VALUES)
    again.close()


def test_rows_changed_after_signing_are_nobodys(packed, tmp_path):
    rewritten(packed, lambda name, data: data.replace(b'"m1"', b'"m2"') if name == "pack.jsonl" else data)
    assert not trust.inspect_pack(packed, open_store(tmp_path / "mine too").signer).own


def test_what_cannot_be_vouched_for_is_not_packed(store, packed, theirs, tmp_path):
    with pytest.raises(UntrustedValueError, match="not signed with your key"):
        packs.write_pack(open_store(store.directory), ["frame"], tmp_path / "o.zip")
    with pytest.raises(PackError, match="nothing to pack"):
        packs.write_pack(theirs, ["none"], tmp_path / "o.zip")
    with pytest.raises(PackError, match="cannot be written"):
        packs.write_pack(open_store(store.directory), ["number"], tmp_path / "no" / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_a_damaged_value_is_not_packed(store, packed, tmp_path):
    (row,) = store.current("frame")
    path = store.directory / "objects" / row.materialization.value.object_name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueUnavailableError, match="damaged"):
        packs.write_pack(store, ["frame"], tmp_path / "o.zip")
    path.unlink()
    with pytest.raises(ValueUnavailableError, match="missing"):
        packs.write_pack(store, ["frame"], tmp_path / "o.zip")


# -- crafted packs -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    """The bytes of a pack, and a store of somebody else, for what is refused and therefore changes nothing."""
    folder = tmp_path_factory.mktemp("packs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPWELL_KEY_FILE", str(folder / "key"))
        store = open_store(folder / "store")
        for key, value in VALUES.items():
            record(store, made(store, key, value))
        packs.write_pack(store, list(VALUES), folder / "out.zip")
        store.close()
        patch.setenv("STEPWELL_KEY_FILE", str(folder / "their key"))
        reader = open_store(folder / "theirs")
    yield (folder / "out.zip").read_bytes(), reader
    reader.close()


@pytest.fixture
def pack(made_once, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out.zip").write_bytes(made_once[0])
    return tmp_path / "out.zip"


@pytest.fixture
def reader(made_once):
    return made_once[1]


def rewritten(path, change=lambda name, data: data, add=(), compression=zipfile.ZIP_STORED):
    """Write a pack again with other contents."""
    with zipfile.ZipFile(path) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members:
            new = change(name, data)
            if new is not None:
                archive.writestr(name, new)
        for name, data in add:
            archive.writestr(name, data)


def rows_changed(path, change):
    def changed(name, data):
        if name != "pack.jsonl":
            return data
        rows = [change(json.loads(line)) for line in data.splitlines()]
        return b"".join(json.dumps(row).encode() + b"\n" for row in rows if row is not None)

    rewritten(path, changed)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "/etc/evil",
        "objects/../../evil",
        "objects/ab/evil",
        "catalog.duckdb",
        "objects\\..\\evil",
        "objects/",
        "key",
    ],
)
def test_a_member_that_is_no_part_of_a_pack_is_refused(pack, reader, name):
    rewritten(pack, add=[(name, b"x")])
    assert_refused(reader, pack, "cannot be imported")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_given_twice_is_refused(pack, reader):
    rewritten(pack, add=[("pack.jsonl", b"x")])
    assert_refused(reader, pack, "it contains 'pack.jsonl'")


def test_a_compressed_pack_is_refused_before_it_is_unpacked(pack, reader):
    rewritten(pack, compression=zipfile.ZIP_DEFLATED)
    assert_refused(reader, pack, "is compressed or encrypted")


@pytest.mark.parametrize("keep", [0, 10, 1000, -30])
def test_a_pack_cut_short_is_refused(pack, reader, keep):
    pack.write_bytes(pack.read_bytes()[:keep])
    assert_refused(reader, pack, "cannot be imported")


@pytest.mark.parametrize("at", [0.2, 0.5, 0.8, 0.95])
def test_a_flipped_bit_is_found(pack, reader, at):
    data = bytearray(pack.read_bytes())
    data[int(len(data) * at)] ^= 4
    pack.write_bytes(data)
    assert_refused(reader, pack, "cannot be imported")


def test_what_is_no_pack_is_refused(pack, reader, tmp_path):
    pack.write_bytes(b"not a zip")
    assert_refused(reader, pack, "cannot be imported")
    with zipfile.ZipFile(pack, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert_refused(reader, pack, "cannot be imported")
    with zipfile.ZipFile(pack, "w") as archive:
        pass
    assert_refused(reader, pack, "was not made by stepwell pack")
    assert_refused(reader, tmp_path / "none.zip", "there is no pack")
    assert_refused(reader, tmp_path, "cannot be imported")


@pytest.mark.parametrize(
    "crafted",
    [
        lambda row: replace_in(row, 13, "../../etc/passwd"),
        lambda row: replace_in(row, 13, "ab/" + "0" * 64 + ".pickle"),
        lambda row: replace_in(row, 10, "0" * 64),
        lambda row: replace_in(row, 9, "plain"),
        lambda row: replace_in(row, 9, None),
        lambda row: replace_in(row, 11, -1),
        lambda row: replace_in(row, 21, "[" * 5000),
        lambda row: replace_in(row, 0, 5),
        lambda row: {**row, "row": row["row"][:5]},
        lambda row: {**row, "row": "x" * 25},
        lambda row: {**row, "row": None},
        lambda row: {"row": row["row"]},
    ],
    ids=range(12),
)
def test_a_crafted_row_is_refused(pack, reader, crafted):
    rows_changed(pack, lambda row: crafted(row) if row["is"] == "materialization" else row)
    assert_refused(reader, pack, "cannot be imported")


def replace_in(row, at, value):
    columns = list(row["row"])
    columns[at] = value
    return {**row, "row": columns}


@pytest.mark.parametrize("drop", ["signature", "pack.jsonl", "objects/"])
def test_a_missing_member_is_refused(pack, reader, drop):
    rewritten(pack, lambda name, data: None if name.startswith(drop) else data)
    assert_refused(reader, pack, "cannot be imported")


def test_a_file_without_a_row_and_a_pointer_to_nothing_are_refused(pack, reader):
    original = pack.read_bytes()
    rows_changed(pack, lambda row: None if row["is"] == "materialization" and row["row"][2] == "frame" else row)
    assert_refused(reader, pack, "are not those that its pack.jsonl lists")
    pack.write_bytes(original)
    rows_changed(pack, lambda row: {**row, "materialization": "none"} if row["is"] == "current" else row)
    assert_refused(reader, pack, "refers to a value that is not in the pack")
    pack.write_bytes(original)
    rows_changed(pack, lambda row: {**row, "format": 99} if row["is"] == "pack" else row)
    assert_refused(reader, pack, "another version of Stepwell")


def test_a_file_whose_header_was_exchanged_is_refused(pack, reader):
    with zipfile.ZipFile(pack) as archive:
        objects = [name for name in archive.namelist() if name.startswith("objects/")]
        other = {name: archive.read(objects[1 - at]) for at, name in enumerate(objects)}
    rewritten(pack, other.get)
    assert_refused(reader, pack, "does not match the digest in this name")


class ComesBack:
    def __reduce__(self):
        return attacked, ()


def attacked():
    Path("attacked").mkdir(exist_ok=True)
    return ComesBack()


def test_a_pickle_in_a_pack_is_executed_by_its_first_load_only(store, theirs, tmp_path, monkeypatch):
    """Whoever says yes trusts: until then nothing of it runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    record(store, made(store, "evil", ComesBack())).wait()
    # Who stores it loads it, in a copy of the process and here.
    Path("attacked").rmdir()
    packs.write_pack(store, ["evil"], tmp_path / "out.zip")
    assert trust.inspect_pack(tmp_path / "out.zip", theirs.signer).executing == 1
    trust.import_pack(theirs, tmp_path / "out.zip")
    assert not os.path.exists("attacked")  # noqa: PTH110
    (row,) = theirs.current("evil")
    theirs.get(row.materialization.value, key="evil")
    assert os.path.exists("attacked")  # noqa: PTH110


# -- values of the store that another key signed -------------------------------------------------------------------------


def test_values_of_another_key_are_taken_over_one_by_one(store, packed, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "their key"))
    here = open_store(store.directory)
    assert {each.item.key for each in trust.foreign_values(here, None).items} == {"frame", "small"}
    with pytest.raises(UnknownKeyError, match="'smal'"):
        trust.foreign_values(here, ["smal"])
    assert trust.foreign_values(here, ["number"]).items == ()
    assert here.snapshot(["small", "frame"], [], []).foreign
    for key in ("small", "frame"):
        assert trust.adopt(here, trust.foreign_values(here, [key])) == []
        (row,) = here.current(key)
        assert len(here.get(row.materialization.value, key=key))
    assert trust.foreign_values(here, None).items == ()
    assert here.snapshot(["small", "frame"], [], []).foreign == {}
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    assert {each.item.key for each in trust.foreign_values(open_store(store.directory), None).items} == {
        "frame",
        "small",
    }


def test_a_damaged_value_of_another_key_is_left_alone(store, packed, tmp_path, monkeypatch):
    (row,) = store.current("frame")
    path = store.directory / "objects" / row.materialization.value.object_name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    bad = made(store, "bad", [1])
    bad = replace(bad, value=replace(bad.value, inline=b"\0\0" + pickle.dumps(Attack(), 5)))
    record(store, bad).wait()
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "their key"))
    here = open_store(store.directory)
    assert sorted(trust.adopt(here, trust.foreign_values(here, None))) == ["bad", "frame"]
    assert {each.item.key for each in trust.foreign_values(here, None).items} == {"bad", "frame"}
    assert not os.path.exists("attacked")  # noqa: PTH110
