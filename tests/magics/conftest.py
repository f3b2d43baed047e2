"""A notebook in this process: IPython's own shell with the extension loaded and a store of its own."""

import os
from dataclasses import dataclass

import pytest
from IPython.core.interactiveshell import InteractiveShell

from stepwell.kernel_runtime.reads.readers import seeded
from stepwell.kernel_runtime.session import get_session


@dataclass
class Ran:
    text: str
    result: object

    @property
    def error(self):
        return self.result.error_before_exec or self.result.error_in_exec

    @property
    def lines(self):
        return self.text.splitlines()


class Notebook:
    def __init__(self, shell, capsys):
        self.shell = shell
        self.capsys = capsys
        self.session = get_session()

    @property
    def ns(self):
        return self.shell.user_ns

    def run(self, cell, cell_id=None):
        """Run a cell that may fail."""
        self.capsys.readouterr()
        result = self.shell.run_cell(cell, store_history=True, cell_id=cell_id)
        out = self.capsys.readouterr()
        return Ran(out.out + out.err, result)

    def __call__(self, cell, cell_id=None):
        """Run a cell that must not fail."""
        ran = self.run(cell, cell_id)
        assert ran.error is None, ran.text
        return ran

    def refused(self, cell, kind):
        """Run a cell that must be refused on one screen, leaving the registry as it was."""
        before = dict(self.session.registry.assets), dict(self.session.registry.jobs)
        ran = self.run(cell)
        assert isinstance(ran.error, kind), ran.text
        assert (dict(self.session.registry.assets), dict(self.session.registry.jobs)) == before
        assert "Traceback" not in ran.text
        assert len(ran.lines) <= 6, ran.text
        return ran.text


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ipython")
    os.environ["IPYTHONDIR"] = str(folder)
    shell = InteractiveShell.instance()
    shell.colors = "nocolor"
    shell.history_manager.enabled = False
    shell.Completer.use_jedi = False
    return shell


@pytest.fixture
def bare(shell, capsys, tmp_path, monkeypatch):
    """The shell without the extension, with a new store chosen."""
    seeded.clear()
    monkeypatch.delenv("STEPWELL_BATCH", raising=False)
    monkeypatch.chdir(tmp_path)
    # What %config set stays in the shell's configuration.
    shell.config.pop("Stepwell", None)
    session = get_session()
    session.registry.assets.clear()
    session.registry.jobs.clear()
    for name in [name for name in shell.user_ns if not name.startswith("__")]:
        del shell.user_ns[name]
    shell.init_user_ns()
    session.attach(None)
    session.attach(shell.user_ns)
    session.use(tmp_path / "store")
    yield Notebook(shell, capsys)
    session.close()


@pytest.fixture
def notebook(bare):
    bare("%load_ext stepwell")
    yield bare
    bare.shell.run_line_magic("unload_ext", "stepwell")
