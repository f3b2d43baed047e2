"""What a hit does beside giving the value (files, objects, definitions) comes from records that are signed with the user's own key, whatever the store says."""

import json
import os
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

import stepwell
from stepwell.kernel_runtime.reads.checks import file_digest
from stepwell.kernel_runtime.records.materializations import Effects, FileEffect, Linked
from stepwell.kernel_runtime.store.catalog.schema import MATERIALIZATION_COLUMNS, materialization_row
from stepwell.kernel_runtime.store.doctor.contents import check_files, rebuild
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.objects.header import about
from stepwell.kernel_runtime.store.signing import sign_record
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import codecs

ONE = """%%asset one
import json
open('given.txt').read()
settings['n'] = 1
open('kept.txt', 'w').write('text')
def helper():
    return 1
beside = [1]
one = {value}
"""
TWO = """%%asset two
settings['n'] = 2
settings['planted'] = True
open('planted.txt', 'w').write('of two')
planted = [2]
two = 2
"""
SMALL, LARGE = "1", "list(range(50_000))"


class Attack:
    def __reduce__(self):
        return os.mkdir, ("planted",)


class Scene:
    """A notebook that ran two cells, and what somebody makes of its store before it is used again."""

    def __init__(self, notebook, folder, monkeypatch):
        self.notebook, self.folder, self.patch = notebook, folder, monkeypatch
        self.store = folder / "store"
        self.own = os.environ["STEPWELL_KEY_FILE"]
        (folder / "given.txt").write_text("1")

    def begin(self, store=None, key=None):
        """Begin with a new kernel."""
        notebook, session = self.notebook, self.notebook.session
        session.close()
        session.registry.assets.clear()
        self.patch.setenv("STEPWELL_KEY_FILE", str(self.folder / key) if key else self.own)
        for name in [name for name in notebook.ns if not name.startswith("__")]:
            del notebook.ns[name]
        notebook.shell.init_user_ns()
        # A namespace that is attached again is the same notebook's.
        session.attach(None)
        session.attach(notebook.ns)
        session.use(store or self.store)
        for name in ("kept.txt", "planted.txt"):
            (self.folder / name).unlink(missing_ok=True)
        notebook("settings = {}")

    def ran(self, value=SMALL, **more):
        """Run both cells; the session is closed then."""
        self.begin(**more)
        self.notebook(ONE.format(value=value))
        self.notebook("settings = {}")
        self.notebook(TWO)
        self.notebook.session.close()

    def rows(self, store=None):
        """Return the records of the store, by key."""
        found = open_store(store or self.store)
        keys = found.keys()
        rows = {key: found.history(key)[0] for key in keys}
        found.close()
        return rows

    def write(self, rows, store=None):
        """Put other records into the store."""
        with duckdb.connect(str((store or self.store) / "catalog.duckdb")) as connection:
            connection.execute("DELETE FROM materializations")
            marks = ", ".join("?" * (MATERIALIZATION_COLUMNS.count(",") + 1))
            for item in rows:
                connection.execute(
                    f"INSERT INTO materializations ({MATERIALIZATION_COLUMNS}) VALUES ({marks})",
                    list(materialization_row(item)),
                )

    def theirs(self):
        """Return a store of somebody else, who has another key."""
        self.patch.setenv("STEPWELL_KEY_FILE", str(self.folder / "their key"))
        found = open_store(self.folder / "theirs")
        self.patch.setenv("STEPWELL_KEY_FILE", self.own)
        return found

    def planted(self, item, store):
        """Return a record of other effects, with a pickle that somebody else signed."""
        content = b"planted"
        (self.folder / "x").write_bytes(content)
        effects = Effects(
            values=("planted",),
            objects=("settings",),
            files=(FileEffect("planted.txt", file_digest(str(self.folder / "x")), len(content), is_stored=True),),
            state=(("environment PLANTED", "1"),),
        )
        bundle = (1, {"planted": Attack()}, [], {}, {"planted.txt": content})
        value = store.put(Linked(bundle, lambda _: None), key="one:notebook", memo_key="")
        return replace(item, effects=effects.as_text(), value=value)

    def again(self, value=SMALL, **more):
        """Run the first cell in a new kernel; return what it said. What it leaves is its own."""
        self.begin(**more)
        return self.first(value)

    def first(self, value=SMALL):
        text = self.notebook(ONE.format(value=value)).text
        assert self.notebook.ns["settings"] == {"n": 1}
        assert Path("kept.txt").read_text() == "text"
        assert self.notebook.ns["helper"]() == 1
        assert self.notebook.ns["beside"] == [1]
        assert "planted" not in self.notebook.ns
        assert not any("PLANTED" in name for name in os.environ)
        assert not Path("planted.txt").exists()
        assert not Path("planted").exists()
        return text


@pytest.fixture
def scene(notebook, tmp_path, monkeypatch):
    return Scene(notebook, tmp_path, monkeypatch)


def of_ours(scene, rows):
    """The key is ours, and nothing else is."""
    store = scene.theirs()
    made = scene.planted(rows["one:notebook"], store)
    signature = sign_record(store.signer, made)
    store.close()
    ours = open_store(scene.store)
    name = sign_record(ours.signer, made)[:8]
    ours.close()
    return replace(made, record_signature=name + signature[8:])


def signed_by_them(scene, rows):
    store = scene.theirs()
    made = scene.planted(rows["one:notebook"], store)
    made = replace(made, record_signature=sign_record(store.signer, made))
    store.close()
    return made


def other_effects(rows, text):
    return replace(rows["one:notebook"], effects=text)


CRAFTED = {
    "unsigned": lambda scene, rows: replace(signed_by_them(scene, rows), record_signature=None),
    "signed with another key": signed_by_them,
    "signed with another key under the name of ours": of_ours,
    "with the signature of the true record": lambda scene, rows: replace(
        signed_by_them(scene, rows), record_signature=rows["one:notebook"].record_signature
    ),
    "with the signature of another record of ours": lambda scene, rows: replace(
        rows["two:notebook"],
        **{name: getattr(rows["one:notebook"], name) for name in ("id", "run_id", "key", "step_key", "memo_key", "code_version")},
    ),
    "effects of another record of ours": lambda scene, rows: other_effects(rows, rows["two:notebook"].effects),
    "effects and value of another record of ours": lambda scene, rows: replace(
        rows["one:notebook"], effects=rows["two:notebook"].effects, value=rows["two:notebook"].value
    ),
    "effects, value and signature of another record of ours": lambda scene, rows: replace(
        rows["one:notebook"],
        **{name: getattr(rows["two:notebook"], name) for name in ("effects", "value", "record_signature")},
    ),
    "a value of ours, no effects and no signature": lambda scene, rows: replace(
        rows["one:notebook"], effects="", value=rows["two:notebook"].value, record_signature=None
    ),
    "a value of ours, no effects and the true signature": lambda scene, rows: replace(
        rows["one:notebook"], effects="", value=rows["two:notebook"].value
    ),
    "another path": lambda scene, rows: other_effects(rows, rows["one:notebook"].effects.replace("kept.txt", "planted.txt")),
    "more definitions": lambda scene, rows: other_effects(
        rows, rows["one:notebook"].effects.replace('"definitions":[0,1]', '"definitions":[1]')
    ),
    "effects that are no JSON": lambda scene, rows: other_effects(rows, '{"files":[[1'),
    "effects of another form": lambda scene, rows: other_effects(rows, '{"files":[[1,2,3,4,5,6,7]],"state":[1]}'),
    "other reads": lambda scene, rows: replace(rows["one:notebook"], reads=()),
    "a signature that is too long": lambda scene, rows: replace(
        rows["one:notebook"], record_signature=rows["one:notebook"].record_signature + b"x"
    ),
}


@pytest.mark.attack(
    "A record says that a step wrote files, changed objects or defined names. The record is unsigned, signed with another key, edited, or contains"
    " a copied signature or parts of other records that the user's key signed.",
    "No file is written, no object changed, no name bound and no pickle loaded; the step runs.",
)
@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_record_has_no_effect(scene, name):
    scene.ran()
    rows = scene.rows()
    made = CRAFTED[name](scene, rows)
    assert made != rows["one:notebook"]
    scene.write([rows["one"], made, rows["two"], rows["two:notebook"]])
    assert "executed" in scene.again()


READER = "%%asset{} reader\nreader = settings['n']"


@pytest.mark.attack(
    "A record that was crafted in one of these ways says which names and files a step changes.",
    "The record does not affect the states of other steps, and no command fails because of the record.",
)
@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_record_says_nothing_of_other_steps(scene, name):
    scene.ran()
    scene.begin()
    scene.notebook("settings = {'n': 1}")
    scene.notebook(READER.format(""))
    scene.notebook.session.close()
    rows = scene.rows()
    made = CRAFTED[name](scene, rows)
    scene.write([rows["one"], made, *(rows[key] for key in ("two", "two:notebook", "reader"))])
    scene.begin()
    for cell in (ONE.format(value=SMALL).replace("%%asset one", "%%asset -r one"), READER.format(" -r")):
        scene.notebook(cell)
    text = scene.notebook("%stepwell status").text
    assert "reader  stale" in text
    assert "would first change" not in text


def test_a_record_of_ours_says_what_its_step_would_change(scene):
    scene.ran()
    scene.begin()
    scene.notebook("settings = {'n': 1}")
    scene.notebook(READER.format(""))
    scene.begin()
    for cell in (ONE.format(value=SMALL).replace("%%asset one", "%%asset -r one"), READER.format(" -r")):
        scene.notebook(cell)
    assert "reader  may change · the reuse of one would first change settings" in scene.notebook("%stepwell status").text


def test_what_is_not_crafted_is_restored(scene):
    scene.ran()
    rows = scene.rows()
    scene.write(rows.values())
    assert "reused" in scene.again()


@pytest.mark.attack(
    "An unsigned record of a value says that the reads of a step still hold. The signed record of the step's effects is beside it.",
    "The effects are restored only if the reads in the signed record hold; otherwise the step runs.",
)
@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_record_beside_a_signed_one_does_not_make_it_hold(scene, first):
    scene.ran()
    rows = scene.rows()
    made = replace(rows["one"], reads=())
    scene.write([made, rows["one:notebook"]] if first else [rows["one:notebook"], made])
    (scene.folder / "given.txt").write_text("2")
    assert "executed" in scene.again()


@pytest.mark.attack(
    "A pack of another person contains records of the effects of steps, signed with the other person's key.",
    "After the user has trusted the pack, its values are loaded, but the effects are not restored, and the step runs.",
)
def test_a_pack_of_somebody_else_has_no_effect(scene):
    theirs = scene.folder / "from them"
    scene.ran(store=theirs, key="their key")
    rows = scene.rows(theirs)
    made = signed_by_them(scene, rows)
    scene.write([rows["one"], made], theirs)
    scene.begin(store=theirs, key="their key")
    stepwell.pack("one", scene.folder / "out.zip", store=theirs)
    scene.begin()
    assert {value.key for value in stepwell.trust(scene.folder / "out.zip", yes=True).values} == {"one", "one:notebook"}
    assert scene.notebook("stepwell.load('one')" if "stepwell" in scene.notebook.ns else "import stepwell")
    assert stepwell.load("one", store=scene.store) == 1
    assert "executed" in scene.first()


@pytest.mark.attack(
    "Headers of value files, from which a lost catalog is rebuilt, contain effects of steps.",
    "A record that is made from a header has no signature, so its effects are not restored, and the step runs.",
)
def test_headers_of_files_have_no_effect(scene):
    scene.ran(LARGE)
    rows = scene.rows()
    made = replace(signed_by_them(scene, rows), code_version=rows["one"].code_version)
    encoded = codecs.encode({"x": bytes(100_000)}, key="one", code=None)
    store = open_store(scene.store)
    for item in (made, rows["one:notebook"]):
        said = {**about(item), "effects": made.effects, "record_signature": item.record_signature.decode("latin-1")}
        told = {"type_name": "", "summary": "", "about": said}
        store.objects.write(encoded, key="one:notebook", memo_key=made.memo_key, about=told)
    store.close()
    os.truncate(scene.store / "catalog.duckdb", 5000)
    assert rebuild(Folder(scene.store), check_files(Folder(scene.store))).from_files > 1
    assert "executed" in scene.again(LARGE)


def test_a_value_from_a_rebuilt_catalog_is_not_reused_without_what_its_cell_left(scene):
    scene.ran(LARGE)
    os.truncate(scene.store / "catalog.duckdb", 5000)
    assert rebuild(Folder(scene.store), check_files(Folder(scene.store))).from_files == 1
    assert "executed" in scene.again(LARGE)
    assert "reused" in scene.again(LARGE)


@pytest.mark.attack(
    "The value file with the effects of a step is changed, or replaced by the file of another step.",
    "The file does not match the signed record: nothing is restored, and the step runs.",
)
@pytest.mark.parametrize("how", ["replaced", "changed"])
def test_a_changed_file_has_no_effect(scene, how):
    large = ONE.replace("'text'", "'text' + ' ' * 100_000").replace("beside = [1]", "beside = [1] * 1")
    scene.begin()
    scene.notebook(large.format(value=SMALL))
    scene.notebook("settings = {}")
    scene.notebook(TWO.replace("'of two'", "'of two' + ' ' * 100_000"))
    scene.notebook.session.close()
    rows = scene.rows()
    path, other = (scene.store / "objects" / rows[key].value.object_name for key in ("one:notebook", "two:notebook"))
    if how == "replaced":
        path.write_bytes(other.read_bytes())
    else:
        path.write_bytes(path.read_bytes().replace(b"text", b"txet"))
    scene.begin()
    assert "executed" in scene.notebook(large.format(value=SMALL)).text
    assert Path("kept.txt").read_text().startswith("text ")
    assert scene.notebook.ns["settings"] == {"n": 1}
    assert not Path("planted.txt").exists()


# -- our own records keep their effects --------------------------------------------------------------------------------


def test_a_renamed_asset_leaves_what_its_cell_left(scene):
    scene.ran()
    scene.begin()
    assert stepwell.rename("one", "first", store=scene.store).versions == 1
    cell = ONE.format(value=SMALL).replace("%%asset one", "%%asset first").replace("\none =", "\nfirst =")
    for _ in range(2):
        scene.begin()
        assert "reused" in scene.notebook(cell).text
        assert scene.notebook.ns["settings"] == {"n": 1}
        assert Path("kept.txt").read_text() == "text"
        assert scene.notebook.ns["helper"]() == 1


def test_a_rename_signs_only_what_was_signed(scene):
    scene.ran()
    rows = scene.rows()
    scene.write([rows["one"], signed_by_them(scene, rows)])
    scene.begin()
    stepwell.rename("one", "first", store=scene.store)
    cell = ONE.format(value=SMALL).replace("%%asset one", "%%asset first").replace("\none =", "\nfirst =")
    assert "executed" in scene.notebook(cell).text
    assert "planted" not in scene.notebook.ns
    assert not Path("planted.txt").exists()


@pytest.mark.parametrize("left", ["all", "definitions only"])
def test_a_pack_of_our_own_keeps_what_its_cells_left(scene, left):
    cell = ONE.format(value=SMALL) if left == "all" else "%%asset one\ndef helper():\n    return 1\none = 1\n"
    scene.begin()
    scene.notebook(cell)
    stepwell.pack("one", scene.folder / "out.zip", store=scene.store)
    for store in (scene.folder / "other", scene.store):
        scene.begin(store=store)
        stepwell.trust(scene.folder / "out.zip", store=store)
        assert "reused" in scene.notebook(cell).text
        assert scene.notebook.ns["helper"]() == 1
        if left == "all":
            assert Path("kept.txt").read_text() == "text"
            assert scene.notebook.ns["settings"] == {"n": 1}


def test_a_pack_with_a_record_of_another_form_is_refused(scene):
    scene.ran()
    stepwell.pack("one", scene.folder / "out.zip", store=scene.store)
    import zipfile

    with zipfile.ZipFile(scene.folder / "out.zip") as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    lines = [json.loads(line) for line in parts["pack.jsonl"].splitlines()]
    for line in lines:
        if line["is"] == "materialization":
            line["row"][26] = "no signature"
    parts["pack.jsonl"] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    with zipfile.ZipFile(scene.folder / "bad.zip", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(stepwell.StepwellError, match="cannot be imported"):
        stepwell.trust(scene.folder / "bad.zip", store=scene.store, yes=True)
