"""What `%lineage` leaves in a notebook: in a kernel, in batch, in a terminal, in a plain process."""

import os
import subprocess
import sys

import pytest
from jupyter_client.manager import start_new_kernel

VIEW = "application/vnd.jupyter.widget-view+json"
SETUP = """
%load_ext stepwell
import stepwell
from stepwell.kernel_runtime.session import get_session
@stepwell.asset
def raw(): return 1
@stepwell.asset
def clean(raw): return raw + 1
"""


@pytest.fixture
def kernel(tmp_path):
    (tmp_path / "pyproject.toml").touch()
    manager, client = start_new_kernel(
        kernel_name="python3", cwd=str(tmp_path), env=os.environ | {"IPYTHONDIR": str(tmp_path / "ipython")}
    )

    def run(code):
        outputs = []
        reply = client.execute_interactive(code, output_hook=outputs.append, timeout=240)
        assert reply["content"]["status"] == "ok", reply["content"]
        return [m["content"] for m in outputs if m["msg_type"] in {"display_data", "execute_result", "stream"}]

    run.client, run.folder = client, tmp_path
    yield run
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def pictures(outputs):
    return [output["data"] for output in outputs if "data" in output]


def test_a_cell_gets_the_live_picture_and_beside_it_the_static_one(kernel):
    kernel(SETUP)
    live, static = pictures(kernel("%lineage"))
    assert set(live) == {VIEW, "text/plain"}
    assert set(static) == {"text/html", "text/plain"}
    assert "○ Missing" in static["text/plain"]
    again, _ = pictures(kernel("%lineage"))
    assert again[VIEW]["model_id"] == live[VIEW]["model_id"]
    one, static = pictures(kernel("%lineage raw"))
    assert one[VIEW]["model_id"] != live[VIEW]["model_id"]
    assert "clean" not in static["text/plain"]


def test_the_widget_by_itself_is_never_bare(kernel):
    kernel(SETUP)
    (bundle,) = pictures(kernel("from stepwell.widgets.lineage import LineageWidget\nLineageWidget(get_session())"))
    assert {VIEW, "text/html", "text/plain"} <= set(bundle)


def test_unknown_keys_are_refused_with_the_nearest_names(kernel):
    kernel(SETUP)
    with pytest.raises(AssertionError, match="did you mean clean"):
        kernel("%lineage claen")


def test_a_broken_definition_does_not_take_the_picture_away(kernel):
    kernel(SETUP)
    kernel("%lineage")
    kernel("from stepwell.widgets import show\nw = show(get_session())\nbefore = w.svg")
    kernel("@stepwell.asset\ndef raw(clean): return clean")
    kernel("w.refresh()\nassert w.svg == before\nassert 'cannot be drawn' in w.problem['title'], w.problem")


def test_unloading_ends_the_widgets(kernel):
    kernel(SETUP)
    kernel("from stepwell.widgets import forget, show\nw = show(get_session())\nforget(get_session())\nassert w.comm is None")


def test_in_batch_there_is_only_the_static_picture(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_BATCH", "b1")
    code = (
        "import stepwell, sys\nfrom IPython.testing.globalipapp import start_ipython\nip = start_ipython()\n"
        "from stepwell.widgets import show\nfrom stepwell.kernel_runtime.session import get_session\nget_session().use(sys.argv[1])\n"
        "assert show(get_session()) is None\nassert 'anywidget' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=True, capture_output=True)


def test_a_plain_process_gets_text_and_loads_no_front_end(tmp_path):
    code = (
        "import stepwell, sys\nfrom stepwell.widgets import show\nfrom stepwell.kernel_runtime.session import get_session\n"
        "@stepwell.asset\ndef raw(): return 1\n"
        "get_session().use(sys.argv[1])\nget_session().registry.register(raw) if 'raw' not in get_session().registry.assets else None\nshow(get_session())\n"
        "assert not {'anywidget', 'ipywidgets', 'IPython'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "store")], check=True, capture_output=True, text=True)
    assert "raw  ○ Missing" in done.stdout


def test_cancel_acts_during_a_cell_of_a_front_end_without_subshells_and_only_on_its_run(kernel):
    kernel(SETUP)
    live, _ = pictures(kernel("%lineage"))
    kernel("import time\n@stepwell.asset\ndef long():\n    open('began', 'w').close()\n    time.sleep(600)")

    def cancel(name, run):
        message = kernel.client.session.msg(
            "comm_msg",
            {
                "comm_id": live[VIEW]["model_id"],
                "data": {"method": "custom", "content": {"type": "cancel", "id": name, "run": run}},
            },
        )
        kernel.client.shell_channel.send(message)

    told = {}

    def listen(message):
        if message["msg_type"] == "comm_msg" and message["content"]["comm_id"] == live[VIEW]["model_id"]:
            told.update(message["content"]["data"].get("state", {}).get("run", {}))
        if told.get("id") and (kernel.folder / "began").exists() and "sent" not in told:
            told["sent"] = True
            cancel("1", "another run")
            cancel("2", told["id"])

    def call(code):
        return kernel.client.execute_interactive(code, output_hook=listen, timeout=120)["content"]

    assert call("stepwell.materialize('long')")["ename"] == "KeyboardInterrupt"
    kernel("assert [step.status for step in stepwell.last_run().steps] == ['cancelled'], stepwell.last_run().steps")
    # The same message, and one for a run that has ended, end nothing of the next cell.
    cancel("2", told["id"])
    cancel("3", told["id"])
    assert call("for _ in range(20): time.sleep(0.01)")["status"] == "ok"
