"""Reads are watched from the first test on: names that a test module has imported before are rebound then."""

import pytest

from stepwell.kernel_runtime.reads import watch


@pytest.fixture(autouse=True, scope="session")
def watched():
    watch()
