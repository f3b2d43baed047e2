"""Lets the tests of this folder share modules, and the processes that run notebooks."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def forks(tmp_path_factory):
    from oracle import Forks

    runner = Forks(tmp_path_factory.mktemp("servers"))
    yield runner
    runner.close()
