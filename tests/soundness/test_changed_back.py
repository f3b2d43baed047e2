"""Changed and changed back: every result is kept under its memo key, nothing is computed twice, and `current` follows."""

import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stepwell

KINDS = ("code", "helper", "config", "file", "global", "in place")


@pytest.fixture
def notebook(monkeypatch):
    made = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", made)
    return made


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 2)), min_size=4, max_size=14))
def test_whatever_was_computed_is_never_computed_again(tmp_path_factory, notebook, changes):
    folder = tmp_path_factory.mktemp("back")
    file = folder / "data.txt"
    space = vars(notebook)
    space["FILE"] = str(file)
    space["SETTINGS"] = {"k": 0}
    now = dict.fromkeys(KINDS, 0)

    def apply(kind):
        value = now[kind]
        if kind == "code":
            exec(
                f"def target(setting, base):\n    return ({value}, setting, base, helper(), RATE, SETTINGS['k'], open(FILE).read())\n",
                space,
            )
        elif kind == "helper":
            exec(f"def helper():\n    return {value}\n", space)
        elif kind == "config":
            exec(f"def setting():\n    return {value}\n", space)
        elif kind == "file":
            before = file.stat() if file.exists() else None
            file.write_text(str(value))
            if before is not None:
                # The same size and the same times: only the inode's change time and the content tell.
                os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        elif kind == "global":
            space["RATE"] = value
        else:
            space["SETTINGS"]["k"] = value

    for kind in KINDS:
        apply(kind)
    exec("def base():\n    return 1\ndef after(target):\n    return str(target)\n", space)
    seen = set()
    for kind, value in [("code", 0), *changes]:
        now[kind] = value
        apply(kind)
        names = ("setting", "base", "target", "after")
        result = stepwell.materialize([stepwell.asset(name=name)(space[name]) for name in names], store=folder / "store")
        statuses = {step.key: step.status for step in result.steps}
        state = tuple(now.items())
        assert statuses["target"] == ("reused" if state in seen else "executed")
        assert statuses["after"] == statuses["target"]
        seen.add(state)
        expected = (now["code"], now["config"], 1, now["helper"], now["global"], now["in place"], str(now["file"]))
        assert result.value("target") == expected
        assert stepwell.load("target", store=folder / "store") == expected
        assert stepwell.load("after", store=folder / "store") == str(expected)
        assert Path(file).read_text() == str(now["file"])
