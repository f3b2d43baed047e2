"""A store that cannot be written is one clear error; what was in it stays as it was."""

import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from stepwell.kernel_runtime.store.store import open_store

PROGRAM = textwrap.dedent(
    """
    import os, sys
    from stepwell.kernel_runtime.errors import StoreNotWritableError
    from stepwell.kernel_runtime.store.store import open_store
    # What is imported when it is needed must not be looked for as somebody else.
    used = open_store(sys.argv[2])
    used.put("x" * 100_000, key="a", memo_key="m")
    used.close()
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    try:
        store = open_store(sys.argv[1])
        store.put("x" * 100_000, key="a", memo_key="m")
    except StoreNotWritableError as error:
        assert "cannot be" in error.what, error
        assert "STEPWELL_STORE" in error.remedy
        print("refused")
    """
)


@pytest.fixture
def reachable():
    """Return a folder that another user can reach: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-"))
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    shutil.rmtree(folder)


@pytest.mark.parametrize("closed", ["all of it", "the catalog", "objects and tmp"])
def test_a_directory_without_write_permission_is_refused(reachable, tmp_path, closed):
    folder = reachable / "store"
    open_store(folder).close()
    everything = [folder, *folder.rglob("*")]
    for path in everything:
        path.chmod(0o777 if path.is_dir() else 0o666)
    for path in {
        "all of it": everything,
        "the catalog": [folder / "catalog.duckdb"],
        "objects and tmp": [folder / "objects", folder / "tmp"],
    }[closed]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = (folder / "catalog.duckdb").read_bytes()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(tmp_path / "used")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.stdout == "refused\n", done.stderr
    assert (folder / "catalog.duckdb").read_bytes() == before
