"""The doctor says what is wrong with a store and what to do, mends what can be mended, and a rebuilt catalog reuses nothing stale."""

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import stepwell
from stepwell import asset
from stepwell.batch.command_line import main
from stepwell.kernel_runtime.errors import StoreDamagedError, StoreError, StoreFormatError
from stepwell.kernel_runtime.store.doctor import surroundings
from stepwell.kernel_runtime.store.doctor.contents import check_catalog, check_files, rebuild
from stepwell.kernel_runtime.store.doctor.examination import examine
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import codecs
from tests.store.rows import made, record

PROJECT = """
import sys
import numpy as np
import stepwell
from stepwell import asset, multi_asset, AssetOut

FACTOR = int(sys.argv[2])

@asset
def raw():
    return np.arange(50_000) + int(open(sys.argv[3]).read())

@asset
def scaled(raw):
    return raw * FACTOR

@asset
def total(scaled):
    return int(scaled.sum())

@multi_asset(outs={"large": AssetOut(), "small": AssetOut()})
def pair(raw):
    return raw * 0.5, 7

@asset
def acted(raw) -> None:
    open(sys.argv[3] + ".log", "a").write(f"acted {FACTOR}\\n")

result = stepwell.materialize([raw, scaled, total, pair, acted], store=sys.argv[1])
import json
from stepwell.commands.wording import notice_text
print(json.dumps([[step.key for step in result.steps if step.status == "executed"], result.value("total"), [notice_text(each) for each in result.notices]]))
"""


class Scene:
    """A project in a folder, and its store."""

    def __init__(self, folder):
        self.store = folder / "store"
        self.data = folder / "data.txt"
        self.project = folder / "project.py"
        self.begin()

    def begin(self):
        self.data.write_text("0")
        self.project.write_text(PROJECT)

    def run(self, factor=2):
        """Run the project in a fresh process; return the steps that were executed, the total, the notes."""
        done = subprocess.run(
            [sys.executable, str(self.project), str(self.store), str(factor), str(self.data)],
            check=True, capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        executed, total, notes = json.loads(done.stdout)
        return set(executed), total, notes

    def doctor(self):
        """Return what the doctor finds in the store."""
        findings = {each.about: each for each in examine(self.store)}
        assert all(str(each).count("\n") <= 1 for each in findings.values())
        return findings

    def rebuild(self):
        return rebuild(Folder(self.store), check_files(Folder(self.store)))

    def objects(self):
        return sorted((self.store / "objects").glob("*/*"))

    def lose_catalog(self):
        os.truncate(self.store / "catalog.duckdb", 5000)


EVERYTHING = {"raw", "scaled", "total", "pair", "acted"}
TOTAL = sum(range(50_000))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Return a project that was run with the factors 3 and 2, and a copy of its store."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEPWELL_KEY_FILE", str(folder / "key"))
        scene = Scene(folder)
        assert scene.run(3) == (EVERYTHING, 3 * TOTAL, [])
        assert scene.run(2) == ({"scaled", "total", "acted"}, 2 * TOTAL, [])
    shutil.copytree(scene.store, folder / "copy")
    return scene


@pytest.fixture
def scene(ran, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(ran.project.with_name("key")))
    gc.collect()
    shutil.rmtree(ran.store)
    shutil.copytree(ran.project.with_name("copy"), ran.store)
    ran.begin()
    return ran


def flip(path, at=-1000):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_a_healthy_store_has_only_good_lines(scene):
    findings = scene.doctor()
    # How full the disk is depends on the machine.
    assert {each.status for each in findings.values() if each.about != "disk"} == {"ok"}
    assert list(findings) == [
        "versions", "mount", "permissions", "locks", "key", "disk", "catalog", "values", "missing", "orphans", "leftovers",
    ]  # fmt: skip
    assert findings["catalog"].facts["materializations"] == 9
    assert findings["values"].facts["files"] == 4


def test_a_flipped_bit_is_found_set_aside_and_computed_again(scene):
    for path in scene.objects():
        flip(path)
    found = scene.doctor()
    assert found["values"].status == "problem"
    assert (
        "damage was found in 4 of 4 value files (values of large, raw, scaled); damaged files were moved" in found["values"].text
    )
    assert found["missing"].status == "warning"
    executed, total, notes = scene.run()
    assert executed == {"raw", "scaled", "pair"}
    assert total == 2 * TOTAL
    assert len(notes) == 3
    assert "computed again" in notes[0]
    assert [each.state for each in check_files(Folder(scene.store))] == ["whole"] * 3


def test_a_truncated_file_counts_as_missing_without_the_doctor(scene):
    for path in scene.objects():
        os.truncate(path, path.stat().st_size // 2)
    executed, total, notes = scene.run()
    assert executed == {"raw", "scaled", "pair"}
    assert total == 2 * TOTAL
    assert len(notes) == 3


def test_a_lost_catalog_is_rebuilt_and_what_files_hold_is_reused(scene):
    scene.lose_catalog()
    with pytest.raises(StoreDamagedError):
        open_store(scene.store)
    findings = {each.about: each for each in examine(scene.store, rebuild_catalog=True)}
    assert findings["rebuild"].facts["from_files"] == 4
    assert "catalog.damaged-" in findings["rebuild"].text
    assert findings["catalog"].status == "ok"
    assert scene.run(3) == ({"total", "pair", "acted"}, 3 * TOTAL, [])
    assert scene.run(2)[:2] == ({"total", "acted"}, 2 * TOTAL)


def test_a_rebuilt_catalog_reuses_nothing_whose_code_or_files_changed(scene):
    scene.lose_catalog()
    scene.rebuild()
    scene.data.write_text("1")
    assert scene.run(2)[:2] == (EVERYTHING, 2 * (TOTAL + 50_000))
    scene.lose_catalog()
    scene.rebuild()
    scene.project.write_text(PROJECT.replace("raw * FACTOR", "raw * FACTOR + 1"))
    executed, total, _ = scene.run(2)
    assert "scaled" in executed
    assert "raw" not in executed
    assert total == 2 * (TOTAL + 50_000) + 50_000


def test_after_lost_rows_what_changed_the_world_runs_again(scene):
    path = scene.store / "catalog.duckdb"
    kept = path.read_bytes()
    scene.run(4)
    # The newest rows are lost: the world is as factor 4 left it, the catalog says that 2 was last.
    path.write_bytes(kept)
    with pytest.raises(StoreDamagedError, match="lacks the last"):
        open_store(scene.store)
    found = scene.rebuild()
    assert not found.complete
    assert found.distrusted == 2
    assert found.from_files == 1
    assert scene.run(2)[0] == {"acted"}


def test_rebuilding_a_whole_catalog_loses_nothing(scene):
    found = scene.rebuild()
    assert found.complete
    assert (found.from_files, found.distrusted) == (0, 0)
    assert not scene.run(2)[0]
    assert len(open_store(scene.store).runs()) == 3


def test_a_value_file_that_says_nothing_of_its_step_can_be_loaded_and_is_not_reused(tmp_path):
    store = open_store(tmp_path / "store")
    store.put(np.arange(20_000), key="a", memo_key="m")
    store.close()
    found = rebuild(Folder(tmp_path / "store"), check_files(Folder(tmp_path / "store")))
    assert found.only_loadable == 1
    (current,) = store.current("a")
    assert current.materialization.memo_key == ""
    assert store.get(current.materialization.value, key="a")[5] == 5


def test_damaged_pages_cost_only_the_table_that_they_are_in(tmp_path):
    program = (
        "import sys; sys.path.insert(0, sys.argv[2]); import rows\n"
        "from stepwell.kernel_runtime.store.store import open_store\n"
        "import random; chance = random.Random(1)\n"
        "store = open_store(sys.argv[1])\n"
        "made = [rows.made(store, f'k{i}', chance.randbytes(300), memo_key=f'm{i}') for i in range(12_000)]\n"
        "rows.record(store, *made).wait(); store.close()\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "store"), str(Path(__file__).parent)], check=True, timeout=240)
    path = tmp_path / "store" / "catalog.duckdb"
    with path.open("rb+") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xa5" * 100)
    with pytest.raises(StoreDamagedError):
        check_catalog(Folder(tmp_path / "store"))
    found = rebuild(Folder(tmp_path / "store"), [])
    assert found.salvaged.unread == ["materializations"]
    assert not found.complete
    store = open_store(tmp_path / "store")
    assert len(store.keys()) == 12_000
    assert store.current("k1") == store.history("k1") == []


KILL = """
import os, sys
from pathlib import Path
from stepwell.kernel_runtime.store.doctor import contents
place = sys.argv[2]
kill = lambda *_, **__: os.kill(os.getpid(), 9)
from stepwell.kernel_runtime.store.folder import Folder
if place in ("_add_files", "_put_in_place", "write_seal"):
    setattr(contents, place, kill)
elif place == "sync":
    Folder.sync = kill
else:
    real = getattr(Folder, place)
    setattr(Folder, place, lambda *given: (real(*given), kill()))
from stepwell.kernel_runtime.store.doctor.contents import check_files
folder = Folder(Path(sys.argv[1]))
contents.rebuild(folder, check_files(folder))
"""


@pytest.mark.parametrize("place", ["_add_files", "sync", "_put_in_place", "link", "rename", "write_seal"])
def test_a_rebuild_that_is_killed_can_be_done_again(scene, place):
    # A log stays beside the damaged catalog, as a killed writer leaves one.
    (scene.store / "catalog.duckdb.wal").write_bytes(b"x" * 500)
    done = subprocess.run([sys.executable, "-c", KILL, str(scene.store), place], check=False, capture_output=True, timeout=240)
    assert done.returncode == -9, done.stderr
    scene.rebuild()
    store = open_store(scene.store)
    for key in ("raw", "scaled", "large"):
        (current,) = store.current(key)
        assert current.materialization.memo_key
        store.get(current.materialization.value, key=key)
    store.close()
    assert [path for path in scene.store.glob("catalog.duckdb*") if path.suffix == ".wal"] == []


def test_a_newer_catalog_is_not_rebuilt(scene):
    import duckdb

    with duckdb.connect(str(scene.store / "catalog.duckdb")) as connection:
        connection.execute("UPDATE meta SET format = 99")
    before = (scene.store / "catalog.duckdb").read_bytes()
    with pytest.raises(StoreFormatError, match="newer version of Stepwell"):
        scene.rebuild()
    assert (scene.store / "catalog.duckdb").read_bytes() == before


def test_garbage_is_counted_and_removed_on_request_only(scene):
    hour_ago = time.time() - 4000
    orphan = shutil.copy(scene.objects()[0], scene.objects()[0].with_name("0" * 64 + ".pickle"))
    young = Path(shutil.copy(orphan, orphan.with_name("1" * 64 + ".pickle")))
    left = scene.store / "tmp" / "left"
    left.write_bytes(b"x" * 1000)
    for path in (orphan, left):
        os.utime(path, (hour_ago, hour_ago))
    found = {each.about: each for each in examine(scene.store, full=False)}
    assert found["orphans"].facts["old"] == 1
    assert "1 file of dead processes" in found["leftovers"].text
    assert Path(orphan).exists()
    found = {each.about: each for each in examine(scene.store, full=False, clean=True)}
    assert "removed 1 value file" in found["orphans"].text
    assert not Path(orphan).exists()
    assert not left.exists()
    assert young.exists()
    assert len(scene.objects()) == 5


def test_the_command_says_the_same_and_its_exit_code_tells(scene, capsys):
    command = ["doctor", "--store", str(scene.store)]
    assert main(command) == 0
    assert capsys.readouterr().out.count("\n✓") == 10
    flip(scene.objects()[0])
    assert main([*command, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "problem"
    assert [each["about"] for each in found["findings"] if each["status"] == "problem"] == ["values"]
    scene.lose_catalog()
    assert main([*command, "--quick"]) == 5
    assert "✗ catalog" in capsys.readouterr().out
    assert main([*command, "--rebuild"]) == 0
    assert main(["doctor", "--store", str(scene.store / "none")]) == 5


def test_doctor_checks_a_directory_or_an_open_store(scene):
    findings = stepwell.doctor(store=scene.store)
    assert {each.status for each in findings if each.about != "disk"} == {"ok"}
    assert stepwell.open_store(scene.store).doctor(quick=True)[-1].as_dict()["about"] == "leftovers"
    with pytest.raises(StoreError, match="there is no store"):
        stepwell.doctor(store=scene.store / "none")


def test_the_store_can_be_used_meanwhile(scene):
    store = open_store(scene.store)
    for index, _ in enumerate(examine(scene.store)):
        stored = store.put(np.full(20_000, index), key="a", memo_key="m")
        assert store.get(stored, key="a")[0] == index
        assert store.keys()
    store.close()


# -- surroundings ----------------------------------------------------------------------------------------------------


def test_a_network_mount_is_named(tmp_path):
    table = tmp_path / "mounts"
    real = os.path.realpath(tmp_path)
    for kind, options, status in (
        ("ext4", "rw", "ok"), ("nfs4", "rw", "warning"), ("fuse.sshfs", "rw", "warning"), ("9p", "rw", "warning"), ("ext4", "ro,noatime", "unusable"),
    ):  # fmt: skip
        table.write_text(f"/dev/x / ext4 rw 0 0\nserver:/x {real} {kind} {options} 0 0\nserver:/y {real}/other nfs rw 0 0\n")
        found = surroundings.mount(tmp_path / "store", table)
        assert (found.status, found.facts["type"]) == (status, kind)


def test_locks_that_keep_nobody_apart_are_seen(tmp_path, monkeypatch):
    assert surroundings.locks(Folder(tmp_path)).status == "ok"
    monkeypatch.setattr(surroundings, "lock", lambda descriptor, *, block: True)
    found = surroundings.locks(Folder(tmp_path))
    assert found.status == "unusable"
    assert "flock: a second process reported 'free' while this process held the lock" in found.text
    assert not list((tmp_path / "tmp").iterdir())


def test_a_store_that_everybody_can_write_is_a_problem(scene):
    scene.store.chmod(0o777)
    found = surroundings.permissions(Folder(scene.store))
    assert found.status == "problem"
    assert found.remedy == f"chmod o-w {scene.store}"


def test_a_key_that_others_can_read_or_that_is_damaged_is_a_problem(tmp_path, monkeypatch):
    path = tmp_path / "other key"
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(path))
    assert "no key yet" in surroundings.key()[0].text
    path.write_bytes(b"k" * 32)
    path.chmod(0o644)
    found, _ = surroundings.key()
    assert found.status == "problem"
    assert found.remedy
    path.chmod(0o600)
    found, name = surroundings.key()
    assert found.status == "ok"
    assert found.facts["fingerprint"].replace("-", "") == name.hex()
    path.write_bytes(b"short")
    assert surroundings.key()[0].status == "problem"


def test_values_signed_by_another_key_are_counted(scene, tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "other key"))
    stored = open_store(tmp_path / "elsewhere").put([1], key="a", memo_key="m")
    assert stored
    found = scene.doctor()["values"]
    assert found.facts["foreign"] == 4
    assert "STEPWELL_KEY_FILE" in found.remedy
    assert len(scene.objects()) == 4


@asset
def one():
    return 1


def test_the_result_of_a_repaired_store_can_be_materialized_in_this_process(scene):
    stepwell.materialize([one], store=scene.store)
    scene.lose_catalog()
    scene.rebuild()
    assert stepwell.materialize([one], store=scene.store).value("one") == 1


def test_what_a_living_writer_has_not_recorded_is_no_garbage(tmp_path):
    store = open_store(tmp_path / "store")
    stored = store.put(np.full(20_000, 7), key="a", memo_key="m")
    path = store.directory / "objects" / stored.object_name
    os.utime(path, (time.time() - 4000,) * 2)
    list(examine(store.directory, full=False, clean=True))
    assert path.exists()
    store.close()


def test_a_value_file_of_another_version_is_left_where_it_is(scene):
    path = scene.objects()[0]
    data = bytearray(path.read_bytes())
    data[8:12] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    found = scene.doctor()["values"]
    assert found.status == "warning"
    assert "1 file could not be read by this version" in found.text
    assert path.read_bytes() == data


SAID = {
    "key": {"about": {"key": 5}},
    "reads": {"about": {"reads": "junk"}},
    "a read": {"about": {"reads": "[[1]]"}},
    "inputs": {"about": {"inputs": "[1]"}},
    "metadata": {"about": {"metadata": "[]"}},
    "memo key": {"about": {"memo_key": ["m"]}},
    "time": {"about": {"created": "yesterday"}},
    "a time that never comes": {"about": {"created": 1e300}},
    "no time": {"about": {"created": float("nan")}},
    "effects": {"about": {"effects": {"files": []}, "record_signature": [1]}},
    "nothing": {"about": [1]},
    "classes": {"classes": 5},
    "a class": {"classes": [[1, 2, 3]]},
    "names": {"key": {"a": 1}, "type_name": None, "summary": ["x"]},
    "surrogates": {"about": {"key": "\ud800"}},
}


@pytest.mark.attack(
    "The header of a value file contains any record. The headers of plain data need no signature.",
    "`stepwell doctor --rebuild` makes a catalog from all other files, and every command works, whatever the header contains.",
)
def test_a_header_that_says_anything_does_not_keep_a_store_from_being_rebuilt(tmp_path, capsys):
    store = open_store(tmp_path / "store")
    record(store, made(store, "good", b"x" * 100_000)).wait()
    for number, said in enumerate(SAID.values()):
        told = {"type_name": "bytes", "summary": "", "about": {}, "key": "crafted", **said}
        store.objects.write(codecs.encode(bytes([number]) * 100_000, key="a", code=None), key="k", memo_key="m", about=told)
    store.close()
    os.truncate(tmp_path / "store/catalog.duckdb", 5000)
    folder = Folder(tmp_path / "store")
    assert rebuild(folder, check_files(folder)).from_files == len(SAID) + 1
    for command in (["status"], ["status", "--json"], ["versions", "crafted"], ["gc", "--dry-run"], ["doctor"]):
        assert main([*command, "--store", str(tmp_path / "store")]) == 0, capsys.readouterr().err
    assert open_store(tmp_path / "store").keys().count("good") == 1
