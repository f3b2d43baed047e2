"""What the runs of a batch execution did is reported from the store."""

from __future__ import annotations

import json

import nbformat

LOAD = "%load_ext stepwell"
RAW = "%%asset raw\nprint('computing')\nraw = [1, 2, 3]"
TOTAL = "%%asset total\ntotal = sum(raw)"
FETCH = "%%op fetch() -> data\ndata = {'a': 1}"
TRANSFORM = "%%op transform(data) -> out\nout = data['b']"
MATERIALIZE = "%%graph_asset -r report\ntransform(fetch())", "%%asset -r pages\nlen(report)", "%materialize pages"


def statuses(report):
    """The last status of each step."""
    return {step["key"]: step["status"] for run in report["runs"] for step in run["steps"]}


def test_a_second_execution_reuses_every_asset(write, stepwell, project):
    path = write("daily.ipynb", LOAD, RAW, TOTAL, "print(total)")

    first = stepwell("run", path, "--json")
    second = stepwell("run", path, "--json", "again.ipynb")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert set(first.json) == {"notebook", "status", "runs", "error"}
    assert (first.json["notebook"], first.json["status"], first.json["error"]) == (str(path), "success", None)
    assert [run["status"] for run in first.json["runs"]] == ["success", "success"]
    assert [[step["status"] for step in run["steps"]] for run in first.json["runs"]] == [
        ["executed"],
        ["reused", "executed"],
    ]
    assert all(
        set(step) == {"key", "status", "seconds"} and step["seconds"] >= 0 for run in first.json["runs"] for step in run["steps"]
    )
    assert statuses(second.json) == {"raw": "reused", "total": "reused"}
    assert all(step["status"] == "reused" for run in second.json["runs"] for step in run["steps"])
    assert {run["run_id"] for run in first.json["runs"]}.isdisjoint(run["run_id"] for run in second.json["runs"])
    assert "steps: 3 reused" in second.err.splitlines()
    assert nbformat.read(project / "again.ipynb", 4).cells[-1].outputs[0].text == "6\n"

    listed = stepwell("status", "--json").json
    assert [(asset["key"], asset["notebook"]) for asset in listed["assets"]] == [
        ("raw", "daily.ipynb"),
        ("total", "daily.ipynb"),
    ]
    runs = stepwell("runs", "3", "--json").json["runs"]
    assert [run["run_id"] for run in runs[:2]] == [run["run_id"] for run in reversed(second.json["runs"])]
    assert len(runs) == 3


def test_a_failing_step_is_reported_and_the_next_execution_continues(write, stepwell, project):
    path = write("weekly.ipynb", LOAD, FETCH, TRANSFORM, *MATERIALIZE)
    failing = nbformat.read(path, 4).cells[-1].id

    failed = stepwell("run", path, "--json", "--store", "elsewhere")

    assert failed.code == 1
    assert failed.json["status"] == "failure"
    (run,) = failed.json["runs"]
    assert run["status"] == "failure"
    assert statuses(failed.json) == {"report.fetch": "executed", "report.transform": "failed", "pages": "untouched"}
    assert failed.json["error"] == {"cell": failing, "name": "KeyError", "message": "'b'"}
    assert f"run {run['run_id']} failed at report.transform" in failed.err
    assert f'stepwell.resume("{run["run_id"]}")' in failed.err
    assert not (project / ".stepwell").exists()

    write(
        "weekly.ipynb",
        LOAD,
        FETCH,
        TRANSFORM.replace("'b'", "'a'"),
        *MATERIALIZE[:1],
        "%%asset -r pages\n[report]",
        MATERIALIZE[2],
    )
    mended = stepwell("run", path, "--json", STEPWELL_STORE="elsewhere")

    assert mended.code == 0, mended.err
    assert statuses(mended.json) == {"report.fetch": "reused", "report.transform": "executed", "pages": "executed"}


def test_an_interrupted_run_is_cancelled_and_continued(write, start, stepwell, project, until):
    slow = "%%asset slow\nimport os, time\nopen('began', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.01)\nslow = 1"
    path = write("long.ipynb", LOAD, RAW, slow, "%%asset -r last\nslow + 1")
    process = start("run", path, "--json")
    until((project / "began").exists)
    process.terminate()
    out, err = process.communicate(timeout=240)

    assert process.returncode == 143, err
    runs = json.loads(out)["runs"]
    assert [run["status"] for run in runs] == ["success", "cancelled"]
    assert [step["status"] for step in runs[1]["steps"]] == ["cancelled"]

    (project / "go").touch()
    ended = stepwell("run", path, "--json")
    assert ended.code == 0, ended.err
    assert statuses(ended.json) == {"raw": "reused", "slow": "executed"}


def test_an_error_of_stepwell_is_one_screen_without_a_traceback(write, stepwell):
    path = write("wrong.ipynb", LOAD, RAW, "%materialize nothing_like_it")

    ended = stepwell("run", path)

    assert ended.code == 1
    assert "Traceback" not in ended.err
    assert len(ended.err.splitlines()) < 12
    assert "UnknownKeyError: there is no" in ended.err
    assert "cell [3] (id " in ended.err


def test_values_that_are_not_stored_are_listed_and_fail_where_that_is_asked_for(write, stepwell):
    path = write("live.ipynb", LOAD, "%%asset rows\nrows = (x for x in [1, 2])", "%%asset total\ntotal = 3")
    lenient = stepwell("run", path)
    assert lenient.code == 0, lenient.err
    assert (
        "the value of rows is not stored (it is a generator): every kernel that needs the value computes it again" in lenient.err
    )
    strict = stepwell("run", path, "--strict")
    assert strict.code != 0
    assert "the value of 'rows' cannot be stored: it is a generator" in strict.err


def test_the_last_line_says_how_long_reused_steps_took(write, stepwell):
    path = write("slow.ipynb", LOAD, "%%asset slow\nimport time\ntime.sleep(1.2)\nslow = 1", "%materialize slow")
    assert "steps: 1 executed, 1 reused (executed: slow)" in stepwell("run", path).err.splitlines()
    assert "steps: 2 reused, 1.2 s saved" in stepwell("run", path).err.splitlines()
