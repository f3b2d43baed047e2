"""Fixtures of the store's tests: a directory, a key of its own, a store."""

import pytest

from stepwell.kernel_runtime.store.store import open_store


@pytest.fixture(autouse=True)
def own_key(tmp_path, monkeypatch):
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store")
    yield store
    store.close()
