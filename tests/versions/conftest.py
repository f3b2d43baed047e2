"""Lets the tests of this folder share a module, in this process and in those that they start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pytest

from stepwell.kernel_runtime.reads import watch


@pytest.fixture(autouse=True, scope="session")
def watched():
    watch()
