"""A difference is explained by its smallest true causes."""

import sys
from collections import Counter

import pytest
from edited_cells import run_cells

from stepwell.kernel_runtime.definitions.bodies import set_cell_labels
from stepwell.kernel_runtime.records.materializations import CodePart, CodeVersion
from stepwell.kernel_runtime.session.reasons import describe, explain
from stepwell.kernel_runtime.versions.walk import CodeWalk


def full(*cells, asset_names=None):
    space = run_cells(*cells)
    walk = CodeWalk(namespace=space, asset_names=asset_names)
    found = walk.of(space["target"], path="report.transform")
    return CodeVersion(found.digest, walk.parts(space["target"], path="report.transform"))


def changes(before, after):
    return explain(full(*before), full(*after))


TARGET = "def target(): return normalise(1) + CUTOFF\n"


def test_a_helper_that_was_edited_is_named_with_its_diff():
    before = "def normalise(v):\n    return v\n"
    (change,) = changes(
        (before, TARGET, "CUTOFF = 3\n"),
        (before.replace("v\n", "v + 1\n").replace("(v + 1", "(v"), TARGET, "CUTOFF = 3\n"),
    )
    assert (change.kind, change.path) == ("function", "report.transform -> normalise")
    assert "-    return v" in change.diff
    assert "+    return v + 1" in change.diff
    assert describe(change).startswith("normalise() changed (")


def test_the_front_end_can_name_cells():
    set_cell_labels(lambda name: "cell 9" if "ipykernel" in name else None)
    try:
        (change,) = changes(("def normalise(v): return v\n", TARGET), ("def normalise(v): return -v\n", TARGET))
        assert describe(change) == "normalise() changed (cell 9, line 1)"
    finally:
        set_cell_labels()


def test_a_global_shows_its_old_and_new_value():
    (change,) = changes((TARGET, "CUTOFF = 3\n"), (TARGET, "CUTOFF = 4\n"))
    assert (change.kind, change.before, change.after) == ("global", "3", "4")
    assert describe(change) == "CUTOFF: 3 -> 4"
    (change,) = changes(("C = {'a': 1}\ndef target(): return C\n",), ("C = {'a': 2}\ndef target(): return C\n",))
    assert describe(change) == "C: {'a': 1} -> {'a': 2}"


def test_what_a_changed_helper_now_reaches_is_no_cause_of_its_own():
    before = ("def normalise(v): return v\ndef g(): return 1\nK = 1\n", TARGET)
    after = ("def normalise(v): return g() + K\ndef g(): return 1\nK = 1\n", TARGET)
    assert [change.path for change in changes(before, after)] == ["report.transform -> normalise"]


def test_two_edits_are_two_causes():
    found = changes(("def normalise(v): return v\nCUTOFF = 1\n", TARGET), ("def normalise(v): return -v\nCUTOFF = 2\n", TARGET))
    assert {change.path.rpartition(" ")[2] for change in found} == {"normalise", "CUTOFF"}


def test_the_body_itself():
    (change,) = changes(("def target(): return 1\n",), ("def target(): return 2\n",))
    assert change.kind == "body"
    assert describe(change).startswith("report.transform changed (")


def test_a_method_is_named_with_its_class():
    source = "class M:\n    def f(self): return 1\ndef target(): return M().f()\n"
    (change,) = changes((source,), (source.replace("1", "2"),))
    assert change.path == "report.transform -> M.f"


def test_another_version_of_a_package():
    def version(number):
        return CodeVersion(number, (CodePart("t", "body", "1"), CodePart("t -> numpy", "package", number, number)))

    (change,) = explain(version("2.0"), version("2.1"))
    assert describe(change) == "numpy 2.0 -> 2.1"


@pytest.mark.parametrize("name", ["API_TOKEN", "db_password", "secret", "apiKey", "MY_API_KEY"])
def test_what_looks_secret_is_never_text(name):
    cells = (
        (f"{name} = 'hunter2-old'\n", f"def target(): return {name}\n"),
        (f"{name} = 'hunter2-new'\n", f"def target(): return {name}\n"),
    )
    (change,) = changes(*cells)
    assert change.path.endswith(name)
    assert "hunter2" not in repr(change) + describe(change)
    assert "hunter2" not in repr(full(*cells[0]).parts)
    config = f"C = {{'{name}': 'hunter2'}}\ndef target(): return C\n"
    assert "hunter2" not in repr(full(config).parts)


def test_equal_versions_have_no_cause():
    assert changes((TARGET,), (TARGET,)) == ()


def test_parts_are_cheap():
    count = 200
    space = run_cells("RATE = 3\n" + "".join(f"def f{at}(x):\n    return x * RATE + {at}\n" for at in range(count)))
    walk = CodeWalk(namespace=space)
    calls = Counter()
    sys.setprofile(lambda frame, event, argument: calls.update((event,)))
    try:
        parts = [walk.parts(space[f"f{at}"], path="f") for at in range(count)]
    finally:
        sys.setprofile(None)
    for at in range(count):
        assert parts[at][0].text == f"def f{at}(x):\n    return x * RATE + {at}\n"
    # Counted, because time depends on what else the machine does.
    assert calls["call"] / count < 200
