"""A process that has imported what notebooks import, and forks a child for every run of a notebook.

    python server.py PLAIN STEPWELL [MODULE ...]

The first arguments are the descriptors of two sockets, for runs without and with Stepwell. Requests and answers are lines of JSON. A child is what a new kernel is: a fresh shell whose `__main__` is empty, with its own
folder, home and store. It ends without cleaning up, as a killed kernel does. Nothing that starts a thread or opens a DuckDB
instance may happen before the fork.
"""

import contextlib
import gc
import importlib
import json
import os
import pkgutil
import random
import select
import signal
import socket
import sys
import types
import warnings
from pathlib import Path

IMPORTED = (
    "numpy",
    "pandas",
    "pyarrow.parquet",
    "polars",
    "duckdb",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.pipeline",
    "matplotlib.pyplot",
    "seaborn",
    "statsmodels.formula.api",
    "pydantic",
    "attrs",
    "msgspec",
    "sqlalchemy.orm",
    "joblib",
    "IPython.core.interactiveshell",
)
PATIENCE = 200
"""Seconds until a run that does not end is killed."""


def import_stepwell():
    import stepwell

    for found in pkgutil.walk_packages(stepwell.__path__, "stepwell."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    from stepwell.kernel_runtime.versions import patches

    patches.scan()  # of all imported libraries: otherwise every child would do the same


def make_shell():
    """Return a shell over a new `__main__`."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    config = Config()
    config.HistoryManager.enabled = False  # its thread would be lost in a child
    config.InteractiveShell.colors = "nocolor"
    config.InteractiveShell.xmode = "Minimal"
    main = types.ModuleType("__main__")
    main.__dict__["__builtins__"] = sys.modules["builtins"]
    sys.modules["__main__"] = main
    shell = InteractiveShell.instance(config=config, user_module=main, user_ns=main.__dict__)
    shell.Completer.use_jedi = False
    return shell


class Child:
    """One run of a notebook, in a forked process."""

    def __init__(self, shell, request):
        self.shell = shell
        self.request = request

    def prepare(self):
        import numpy as np

        os.environ.update(self.request["environment"])
        os.chdir(self.request["folder"])
        sys.path.insert(0, "")
        # A module that is edited within a second, to a text of equal length, would be loaded from its old bytecode.
        sys.dont_write_bytecode = True
        importlib.invalidate_caches()
        random.seed()
        np.random.seed()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.output = (Path(self.request["environment"]["HOME"]) / "output").open("w+b")
        os.dup2(self.output.fileno(), 1)
        os.dup2(self.output.fileno(), 2)

    def serve(self):
        self.prepare()
        cells = [self.cell(text, name) for name, text in self.request["cells"]]
        return {"cells": cells, "values": [self.value(watch) for watch in self.request["watch"]]}

    def cell(self, text, name=None):
        """Run a cell; return what it printed and the error, if any."""
        sys.stdout.flush()
        sys.stderr.flush()
        before = self.output.seek(0, os.SEEK_END)
        result = self.shell.run_cell(text, store_history=True, cell_id=name)
        sys.stdout.flush()
        sys.stderr.flush()
        self.output.seek(before)
        error = result.error_before_exec or result.error_in_exec
        return self.output.read().decode("utf-8", "replace"), f"{type(error).__name__}: {error}" if error else ""

    def value(self, expression):
        text, error = self.cell(f"print(repr({expression}), end='')")
        return error or text


def answer(shell, request):
    """Fork a child for a request and return its answer as text."""
    incoming, outgoing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(incoming)
        try:
            text = json.dumps(Child(shell, request).serve())
        except BaseException as error:
            text = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        with os.fdopen(outgoing, "w") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(outgoing)
    parts = []
    with os.fdopen(incoming, "rb") as pipe:
        while True:
            ready, _, _ = select.select([pipe], [], [], PATIENCE)
            if not ready:
                os.kill(child, signal.SIGKILL)
                parts = [json.dumps({"failed": f"no end within {PATIENCE} s"}).encode()]
                break
            part = os.read(pipe.fileno(), 1 << 20)
            if not part:
                break
            parts.append(part)
    _, status = os.waitpid(child, 0)
    return b"".join(parts).decode() or json.dumps({"failed": f"the process ended with status {status}"})


def serve(descriptor, shell):
    with socket.socket(fileno=descriptor) as connection, connection.makefile("rw") as lines:
        lines.write("ready\n")
        lines.flush()
        for line in lines:
            lines.write(answer(shell, json.loads(line)).strip() + "\n")
            lines.flush()


def main():
    for_plain, for_stepwell = map(int, sys.argv[1:3])
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in sys.argv[3:] or IMPORTED:
            importlib.import_module(name)
        shell = make_shell()
    if os.fork():
        os.close(for_stepwell)
        gc.freeze()
        serve(for_plain, shell)
        os.wait()
        return
    os.close(for_plain)
    import_stepwell()
    # What a collection in a child does not look at is not copied there.
    gc.freeze()
    serve(for_stepwell, shell)
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # this folder is no part of a notebook
    with contextlib.suppress(KeyboardInterrupt):
        main()
