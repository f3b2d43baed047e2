"""JupyterLab in a real Chromium: a server of its own on a free port, and a page that drives notebooks in it."""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = os.environ.get("STEPWELL_CHROMIUM", "/usr/bin/chromium")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SHOTS = os.environ.get("STEPWELL_SCREENSHOTS", "")
FIRST_WAIT = 120_000
WAIT = 60_000


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


class Lab:
    """A running JupyterLab server."""

    def __init__(self, url, token, root):
        self.url, self.token, self.root = url, token, root

    def write(self, name, cells, *, metadata=None):
        """Save a notebook of code cells in a project of its own folder, and return its name."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.metadata.update(metadata or {})
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "pyproject.toml").touch()
        nbformat.write(notebook, path)
        return name

    def read(self, name):
        return nbformat.read(self.root / name, as_version=4)


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    home = tmp_path_factory.mktemp("lab")
    root = home / "work"
    root.mkdir()
    settings = home / "settings"
    news = settings / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    env = os.environ | {
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={root}",
        "--LabApp.expose_app_in_browser=True", "--LabApp.extension_manager=readonly",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    log = home / "lab.log"
    with log.open("wb") as output:
        server = subprocess.Popen(command, cwd=root, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_up(server, url, token, log)
        yield Lab(url, token, root)
    finally:
        # The server ends its kernels when it is asked to; what is left of its group is ended with it.
        for how, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            try:
                os.killpg(server.pid, how)
                server.wait(patience)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue


def _wait_until_up(server, url, token, log):
    until = time.monotonic() + FIRST_WAIT / 1000
    while time.monotonic() < until:
        if server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/api/status?token={token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"JupyterLab did not come up:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


class NotebookPage:
    """One notebook, open in JupyterLab."""

    def __init__(self, page, lab, name, *, kernel=True):
        self.page, self.lab, self.name = page, lab, name
        page.goto(f"{lab.url}/doc/tree/{name}?reset&token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=FIRST_WAIT)
        if kernel:
            self.wait_for_kernel()

    def wait_for_kernel(self):
        self.page.wait_for_function(
            """() => { const k = window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel;
                       return k && k.connectionStatus === "connected" && k.status === "idle"; }""",
            timeout=FIRST_WAIT,
        )

    def start(self, index):
        """Begin running a cell, and return at once."""
        self.page.evaluate(
            """(index) => { const app = window.jupyterapp; const nb = app.shell.currentWidget.content;
                            nb.activeCellIndex = index; nb.deselectAll();
                            nb.widgets[index].model.sharedModel.execution_count = null;
                            void app.commands.execute("notebook:run-cell"); }""",
            index,
        )

    def edit(self, index, source):
        """Give a cell another source."""
        self.page.evaluate(
            "([index, source]) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.sharedModel.setSource(source)",
            [index, source],
        )

    def until(self, condition):
        """Wait until something outside the page is so."""
        until = time.monotonic() + FIRST_WAIT / 1000
        while not condition():
            assert time.monotonic() < until, condition
            self.page.wait_for_timeout(20)

    def finish(self, index):
        """Wait until a started cell has run; return its outputs as nbformat has them."""
        return self.page.wait_for_function(
            """(index) => { const m = window.jupyterapp.shell.currentWidget.content.widgets[index].model;
                            if (m.executionState && m.executionState !== "idle") return null;
                            return m.executionCount === null ? null : [m.outputs.toJSON()]; }""",
            arg=index,
            timeout=FIRST_WAIT,
        ).json_value()[0]

    def is_running(self, index):
        return self.page.evaluate(
            "(index) => window.jupyterapp.shell.currentWidget.content.widgets[index].model.executionState === 'running'",
            index,
        )

    def run(self, index):
        self.start(index)
        outputs = self.finish(index)
        errors = [output for output in outputs if output["output_type"] == "error"]
        assert not errors, "\n".join(errors[0]["traceback"])
        return outputs

    def value(self, expression):
        """Return what an expression is in the kernel, as JSON."""
        reply = self.page.evaluate(
            """async (expression) => {
                 const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
                 const future = kernel.requestExecute({ code: "", silent: true, store_history: false, user_expressions: { value: expression } });
                 return (await future.done).content.user_expressions.value; }""",
            f"__import__('json').dumps({expression})",
        )
        assert reply["status"] == "ok", reply
        return json.loads(eval(reply["data"]["text/plain"]))

    def save(self):
        self.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    def shot(self, name):
        """Keep a picture of the page, to look at."""
        if SHOTS:
            self.page.screenshot(path=f"{SHOTS}/{name}.png")

    def theme(self, name):
        self.page.evaluate("(name) => window.jupyterapp.commands.execute('apputils:change-theme', { theme: name })", name)
        light = "false" if "Dark" in name else "true"
        self.page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached", timeout=WAIT)
        self.page.wait_for_selector("#jupyterlab-splash", state="detached", timeout=WAIT)

    def card(self, key):
        return self.page.locator(f'.sw-live g.sw-node[data-key="{key}"]')

    def expect_status(self, key, status):
        """Wait until a card has a status; looks at every frame, so that none is missed that lasts a moment."""
        self.page.wait_for_function(
            """([key, status]) => [...document.querySelectorAll(".sw-live g.sw-node")].some((g) => g.dataset.key === key && g.dataset.status === status)""",
            arg=[key, status],
            timeout=WAIT,
        )


@contextmanager
def notebooks(lab, chromium):
    """Yield a function that opens notebooks; at the end no request may have gone anywhere but to the server."""
    context = chromium.new_context(viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(WAIT)
    elsewhere, broken = [], []

    def watch(request):
        if not request.url.startswith((lab.url, lab.url.replace("http", "ws", 1), "data:", "blob:")):
            elsewhere.append(request.url)

    context.on("request", watch)

    def open_one(name, **how):
        page = context.new_page()
        page.on("pageerror", lambda error: broken.append(str(error)))
        return NotebookPage(page, lab, name, **how)

    yield open_one
    for page in context.pages:
        page.evaluate("() => window.jupyterapp?.shell.currentWidget?.sessionContext.shutdown()")
    context.close()
    assert not elsewhere, f"requests left the machine: {elsewhere}"
    assert not broken, f"errors in the page: {broken}"


@pytest.fixture
def open_notebook(lab, chromium):
    """Open notebooks of one test's own."""
    with notebooks(lab, chromium) as open_one:
        yield open_one


@pytest.fixture(scope="module")
def open_shared_notebook(lab, chromium):
    """Open notebooks that the tests of a module only look at."""
    with notebooks(lab, chromium) as open_one:
        yield open_one
