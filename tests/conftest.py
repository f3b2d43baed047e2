"""Fixtures of every test: a signing key of its own, a store directory, and fresh interpreters."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A shell lets what it starts in the background ignore Ctrl-C, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--write-fidelity-table", action="store_true", help="write docs/fidelity.md anew instead of comparing it")


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    for name in ("STEPWELL_STORE", "STEPWELL_NOTEBOOK", "STEPWELL_BATCH", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def store_dir(tmp_path):
    return tmp_path / "kept"


@pytest.fixture
def python(tmp_path):
    """Start a fresh interpreter on a script; returns its standard output, or the process where `wait` is false."""

    def start(script, *arguments, wait=True, fails=False, name="script.py", stdin=None):
        path = tmp_path / name
        path.write_text(textwrap.dedent(script))
        process = subprocess.Popen(
            [sys.executable, str(path), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(tmp_path)))},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if not wait:
            return process
        out, err = process.communicate(timeout=240)
        assert (process.returncode != 0) is fails, err
        return out if not fails else err

    return start
