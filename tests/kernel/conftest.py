"""A real kernel, driven as a front end drives it: cells are sent with their ids, outputs are collected until it is idle."""

import os
import queue
import re
import sys
import time
from pathlib import Path

import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 240
"""Seconds until a kernel that does not answer fails the test."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


class Ran:
    """The outputs of one cell."""

    def __init__(self):
        self.outputs = []
        self.reply = None

    @property
    def text(self):
        parts = []
        for output in self.outputs:
            content = output["content"]
            if output["msg_type"] == "stream":
                parts.append(content["text"])
            elif output["msg_type"] == "error":
                parts.append("\n".join(content["traceback"]))
            elif "data" in content:
                parts.append(content["data"].get("text/plain", "") + "\n")
        return _ESCAPES.sub("", "".join(parts))

    @property
    def ok(self):
        return self.reply["status"] == "ok"

    @property
    def error(self):
        return self.reply.get("ename", "")


class Kernel:
    def __init__(self, folder):
        self.folder = folder
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(folder))),
            "IPYTHONDIR": str(folder / "ipython"),
            "JPY_SESSION_NAME": str(folder / "work.ipynb"),
            "STEPWELL_KEY_FILE": str(folder / "key"),
            "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        }
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        self.manager.start_kernel(cwd=str(folder), env=environment)
        self._connect()

    def _connect(self):
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def restart(self):
        """Restart the process: nothing but the store is left."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def close(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def send(self, code, cell_id=None):
        message = self.client.session.msg(
            "execute_request",
            {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": False,
                "stop_on_error": False,
            },
            metadata={"cellId": cell_id} if cell_id else {},
        )
        self.client.shell_channel.send(message)
        return message["header"]["msg_id"]

    def collect(self, sent, *, until=None, kinds=()):
        """Collect outputs until the kernel is idle, or until a text appears."""
        ran = Ran()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != sent:
                continue
            if message["msg_type"] in ("stream", "error", "display_data", "execute_result", *kinds):
                ran.outputs.append(message)
                if until is not None and until in ran.text:
                    return ran
            elif message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                ran.reply = self._reply(sent)
                return ran
        raise AssertionError(f"the kernel did not become idle; so far: {ran.text}")

    def _reply(self, sent):
        while True:
            message = self.client.get_shell_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") == sent:
                return message["content"]

    def run(self, code, cell_id=None):
        """Run a cell that may fail."""
        return self.collect(self.send(code, cell_id))

    def __call__(self, code, cell_id=None):
        """Run a cell that must not fail."""
        ran = self.run(code, cell_id)
        assert ran.ok, ran.text
        return ran


@pytest.fixture(scope="session")
def one_kernel(tmp_path_factory):
    """The process, started once; tests restart it or change its store."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "pyproject.toml").write_text("")
    kernel = Kernel(folder)
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(one_kernel, tmp_path):
    """The kernel with nothing defined and a store of its own."""
    one_kernel(
        "%reset -f\n"
        "import stepwell.kernel_runtime.session as _s\n"
        "_registry = _s.get_session().registry\n"
        "_registry.assets.clear(), _registry.jobs.clear()\n"
        "%load_ext stepwell\n"
        f"%stepwell store {tmp_path / 'store'}"
    )
    one_kernel.store = tmp_path / "store"
    return one_kernel
