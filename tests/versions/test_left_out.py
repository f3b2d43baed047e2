"""What a user leaves out of a code version is left out alone: one variable, or one object."""

import gc
import sqlite3
import sys
import threading
import types

import pytest
from edited_cells import run_cells

from stepwell import opaque
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.versions.left_out import OPAQUE
from stepwell.kernel_runtime.versions.walk import CodeWalk

HELPER = "def helper(): return CONN, LIMIT\n"
TARGET = "def target(): return helper(), CONN, LIMIT\n"


def version(space, *ignore, path="target"):
    return CodeWalk(namespace=space).of(space["target"], path=path, ignore=ignore)


def test_an_object_without_a_digest_is_named_with_the_path_to_it():
    space = run_cells(
        "import sqlite3\nCONN = sqlite3.connect(':memory:')\nLIMIT = 1\n", HELPER, "def target(): return helper()\n"
    )
    (found,) = version(space).unverifiable
    assert found.path == "target -> helper -> CONN"
    assert "sqlite3.Connection" in found.reason


def test_an_ignored_name_is_left_out_wherever_the_step_reaches_it():
    space = run_cells("import sqlite3\nCONN = sqlite3.connect(':memory:')\nLIMIT = 1\n", HELPER, TARGET)
    before = version(space, "CONN")
    assert before.unverifiable == ()
    space["CONN"] = 17
    assert version(space, "CONN").digest == before.digest


def test_nothing_else_is_left_out():
    space = run_cells("CONN = 1\nLIMIT = 1\n", HELPER, TARGET)
    before = version(space, "CONN").digest
    space["LIMIT"] = 2
    assert version(space, "CONN").digest != before
    # Nor does one step's leave influence what another one depends on.
    plain = version(space).digest
    space["CONN"] = 2
    assert version(space).digest != plain


def test_the_same_name_in_a_module_is_another_variable(monkeypatch):
    module = types.ModuleType("other_place")
    exec("CONN = 1\ndef read(): return CONN\n", vars(module))
    monkeypatch.setitem(sys.modules, "other_place", module)
    space = run_cells("import other_place\nCONN = 1\n", "def target(): return CONN, other_place.read()\n")
    before = version(space, "CONN").digest
    space["CONN"] = 2
    assert version(space, "CONN").digest == before
    module.CONN = 2
    assert version(space, "CONN").digest != before
    named = version(space, "other_place.CONN").digest
    module.CONN = 3
    assert version(space, "other_place.CONN").digest == named


def test_a_variable_of_an_enclosing_function_can_be_ignored():
    def make(conn, limit):
        def helper():
            return conn, limit

        def target():
            return helper()

        return CodeWalk().of(target, path="target", ignore=("conn",)).digest

    assert make(1, 1) == make(2, 1)
    assert make(1, 1) != make(1, 2)


def test_a_name_in_a_text_and_a_names_builtin_can_be_ignored():
    space = run_cells("cutoff = 1\n", "def target(frame): return frame.query('x > @cutoff')\n")
    before = version(space, "cutoff").digest
    space["cutoff"] = 2
    assert version(space, "cutoff").digest == before
    space = run_cells("def target(): return eval('1')\n")
    assert version(space).unverifiable
    assert not version(space, "eval").unverifiable


def test_an_opaque_object_counts_by_its_version_only():
    space = run_cells("import sqlite3\nCONN = sqlite3.connect(':memory:')\nLIMIT = 1\n", HELPER, TARGET)
    assert version(space).unverifiable
    opaque(space["CONN"])
    first = version(space)
    assert first.unverifiable == ()
    space["CONN"] = opaque(sqlite3.connect(":memory:"))
    assert version(space).digest == first.digest
    opaque(space["CONN"], version="2")
    assert version(space).digest != first.digest
    space["LIMIT"] = 2
    opaque(space["CONN"])
    assert version(space).digest != first.digest


@pytest.mark.parametrize(
    "held",
    [
        "{'lock': LOCK, 'n': N}",
        "[LOCK, N]",
        "functools.partial(print, LOCK, N)",
        "types.SimpleNamespace(lock=LOCK, n=N)",
        "{(1, N), LOCK}",
    ],
)
def test_an_opaque_object_is_left_out_inside_others(held):
    def digest(lock, n):
        space = run_cells("import functools, types\n", "def target(): return HELD\n")
        space.update(LOCK=opaque(lock), N=n)
        exec(f"HELD = {held}", space)
        found = version(space)
        assert not found.unverifiable
        return found.digest

    locks = threading.Lock(), threading.Lock()
    assert digest(locks[0], 1) == digest(locks[1], 1)
    assert digest(locks[0], 1) != digest(locks[0], 2)


def test_an_opaque_container_is_left_out_inside_others():
    space = run_cells("CACHE = []\nCONFIG = {'cache': CACHE, 'n': 1}\n", "def target(): return CONFIG\n")
    opaque(space["CACHE"])
    before = version(space).digest
    space["CACHE"].append(1)
    assert version(space).digest == before
    space["CONFIG"]["n"] = 2
    assert version(space).digest != before


def test_an_opaque_object_is_not_kept_alive():
    class Client:
        pass

    client = opaque(Client())
    key = id(client)
    assert key in OPAQUE
    del client
    gc.collect()
    assert key not in OPAQUE


@pytest.mark.parametrize("value", [1, "text", None, (1, 2), 1.5])
def test_what_has_no_identity_cannot_be_opaque(value):
    with pytest.raises(InvalidInvocationError, match="--ignore"):
        opaque(value)
