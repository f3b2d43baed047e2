"""Fixtures of the fault tests: a key of its own, and real processes that write to one store."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WRITER = Path(__file__).with_name("writer.py")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))


@pytest.fixture
def store(tmp_path):
    from stepwell.kernel_runtime.store.store import open_store

    store = open_store(tmp_path / "store")
    yield store
    store.close()


@pytest.fixture
def start_writer():
    """Return a function that starts a writer; whatever still runs at the end is killed."""
    started = []

    def start(directory, name, *, count=0, batch=5):
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        process = subprocess.Popen(
            [sys.executable, str(WRITER), str(directory), name, str(count), str(batch)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path},
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=240)
