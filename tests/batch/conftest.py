"""Notebooks on disk, and the real command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

PYTHON = {"name": "python3", "display_name": "Python 3", "language": "python"}


@pytest.fixture(autouse=True)
def environment(tmp_path_factory, monkeypatch) -> None:
    """Let nothing of the developer's own set-up take part: ``python3`` is the interpreter that runs the tests."""
    private = tmp_path_factory.mktemp("home")
    for name in (
        "STEPWELL_STORE",
        "STEPWELL_BATCH",
        "STEPWELL_NOTEBOOK",
        "JUPYTER_PATH",
        "JPY_SESSION_NAME",
        "CI",
        "NO_COLOR",
    ):
        monkeypatch.delenv(name, raising=False)
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(private / name.lower()))
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(private / "key"))
    # ipykernel's own kernelspec says "python", which jupyter_client takes as the interpreter that runs it.
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")


@pytest.fixture
def project(tmp_path) -> Path:
    """A project's root: the store of its notebooks is ``.stepwell`` in here."""
    (tmp_path / "pyproject.toml").touch()
    return tmp_path


@pytest.fixture
def write(project) -> Callable[..., Path]:
    """Write a notebook of code cells; a cell is its source, or its source and its tags."""

    def write(name: str, *cells: str | tuple[str, str], kernel: dict | None = PYTHON) -> Path:
        made = v4.new_notebook(metadata={"kernelspec": kernel} if kernel else {})
        for cell in cells:
            source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
            made.cells.append(v4.new_code_cell(source, metadata={"tags": tags}))
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(made, path)
        return path

    return write


class Ended:
    """How a command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def start(project) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in the project's root."""
    started = []

    def start(*arguments: object, **variables: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "stepwell.batch", *map(str, arguments)],
            cwd=project,
            env={**os.environ, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def stepwell(start) -> Callable[..., Ended]:
    """Run the command line in the project's root to its end."""

    def run(*arguments: object, **variables: str) -> Ended:
        process = start(*arguments, **variables)
        out, err = process.communicate(timeout=240)
        return Ended(process.returncode, out, err)

    return run


@pytest.fixture
def until() -> Callable[..., None]:
    """Wait for a condition, at most a minute."""

    def until(condition: Callable[[], object]) -> None:
        end = time.monotonic() + 240
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.01)

    return until


@pytest.fixture
def kernels(project, monkeypatch):
    """Install a kernelspec; returns its name."""

    def install(name, argv, variables):
        folder = project / "jupyter/kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": name, "language": "python", "env": variables})
        )
        return name

    monkeypatch.setenv("JUPYTER_PATH", str(project / "jupyter"))
    return install
