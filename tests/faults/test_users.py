"""Several users and one store: shared by a group, readable only, or on a read-only mount. These tests are root's."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.doctor.surroundings import permissions
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.store import open_store

ONE, TWO, GROUP = 3001, 3002, 3000
NOBODY = 65534
PROGRAM = """
    import os, sys, warnings
    import numpy as np
    import stepwell
    from stepwell.errors import StepwellError
    from stepwell.kernel_runtime.session import get_session
    warnings.simplefilter("ignore", ResourceWarning)
    store, user, group, umask = sys.argv[1], *map(int, sys.argv[2:4]), int(sys.argv[4], 8)

    def array(name, seed):
        namespace = {"np": np}
        exec(f"def {name}(): return np.full(20_000, {seed})", namespace)
        return stepwell.asset(namespace[name])

    def number(name):
        namespace = {}
        exec(f"def {name}(): return 7", namespace)
        return stepwell.asset(namespace[name])

    def made(*names):
        assets = [array(name, len(name)) for name in names] + [number(f"{name}_small") for name in names]
        return stepwell.materialize(assets, store=store).success

    def tried(action):
        try:
            return action()
        except StepwellError as error:
            return f"{type(error).__name__} {str(error)}"

    # What is imported when it is needed must not be looked for as another user.
    kept, store = store, sys.argv[5]
    made("warm")
    stepwell.load("warm", store=store)
    stepwell.sql("FROM stepwell.runs", store=store)
    stepwell.gc(store=store, compact=True)
    get_session().close()
    store = kept
    if user:
        os.setgroups([])
        os.setgid(group)
        os.setuid(user)
    os.umask(umask)
"""


@pytest.fixture
def ground():
    """Return a folder that every user can reach: pytest's own are closed."""
    folder = Path(tempfile.mkdtemp(prefix="stepwell-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def act(ground, tmp_path):
    """Return a function that lets a user do something with a store, and returns what is printed."""

    def act(store, what, *, user=ONE, group=GROUP, umask="022"):
        key = ground / "key"
        if not key.exists():
            key.write_bytes(bytes(32))
            os.chown(key, 0, GROUP)
            key.chmod(0o640)
        home = ground / f"home-{user}"
        home.mkdir(exist_ok=True)
        os.chown(home, user, group)
        script = textwrap.dedent(PROGRAM) + textwrap.dedent(what)
        done = subprocess.run(
            [sys.executable, "-c", script, str(store), str(user), str(group), umask, str(tmp_path / f"warm-{user}")],
            check=False,
            capture_output=True,
            text=True,
            timeout=200,
            cwd=home,
            env={**os.environ, "HOME": str(home), "STEPWELL_KEY_FILE": str(key)},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip() + done.stderr.strip()

    return act


@pytest.fixture
def shared(ground):
    """Return the place of a store in a folder that a group shares."""
    folder = ground / "shared"
    folder.mkdir()
    os.chown(folder, 0, GROUP)
    folder.chmod(0o2775)
    return folder / "store"


@pytest.mark.parametrize("umask", ["022", "077"])
def test_two_users_share_a_store_under_any_umask(shared, act, umask):
    assert act(shared, "print(tried(lambda: made('one')))", umask=umask) == "True"
    assert act(shared, "print(tried(lambda: made('one', 'two')))", user=TWO, umask=umask) == "True"
    assert act(shared, "print(tried(lambda: made('three')), stepwell.load('two', store=store)[0])", umask=umask) == "True 3"
    mode = shared.stat().st_mode
    for path in shared.rglob("*"):
        found = path.stat()
        assert found.st_gid == GROUP
        assert stat.S_IMODE(found.st_mode) == (mode & 0o7777 if path.is_dir() else mode & 0o666), path
    assert permissions(Folder(shared)).status == "ok"


def test_a_compaction_keeps_owner_and_mode_or_writes_nothing(shared, act):
    act(shared, "made('one')", umask="002")
    left = shared / "tmp" / "left by a process that died"
    left.write_text("x")
    os.chown(left, ONE, shared.stat().st_gid)
    os.utime(left, (1, 1))
    before = (shared / "catalog.duckdb").stat()
    said = act(shared, "print(tried(lambda: stepwell.gc(store=store, compact=True)))", user=TWO)
    assert said.startswith("StorePermissionError")
    assert "because its owner would change" in said
    assert (shared / "catalog.duckdb").stat().st_ino == before.st_ino
    assert left.exists()
    act(shared, "stepwell.gc(store=store, compact=True)", umask="077")
    assert not left.exists()
    after = (shared / "catalog.duckdb").stat()
    assert after.st_ino != before.st_ino
    store = open_store(shared)
    housekeeping.collect(store, compact=True)
    store.close()
    for found in (after, (shared / "catalog.duckdb").stat()):
        assert (found.st_uid, found.st_gid, found.st_mode) == (before.st_uid, before.st_gid, before.st_mode)


def test_the_doctor_says_who_cannot_write_which_files(shared, act):
    act(shared, "made('one')", umask="002")
    (shared / "catalog.lock").chmod(0o600)
    (shared / "tmp").chmod(0o2755)
    found = permissions(Folder(shared))
    assert found.status == "problem"
    assert found.facts["closed"] == {str(ONE): ["catalog.lock", "tmp"]}
    assert f"of {ONE}: catalog.lock, tmp" in found.text


def test_a_user_outside_the_group_gets_one_error_before_anything_is_written(ground, act):
    store = ground / "store"
    act(store, "made('one')", user=0, group=0)
    for path in (store, *store.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    before = sorted(path.name for path in store.rglob("*"))
    said = act(store, "print(tried(lambda: made('two')))", user=TWO)
    assert said.startswith("StorePermissionError")
    assert "would belong neither to" in said
    assert sorted(path.name for path in store.rglob("*")) == before


READ = """
    print(stepwell.load("one_small", store=store), stepwell.load("one", store=store)[0])
    print(stepwell.sql("SELECT count(*) AS n FROM stepwell.runs", store=store)["n"][0])
    print(tried(lambda: made("two")))
"""


@pytest.fixture
def closed(ground, act):
    """Return a store that others can read only."""
    store = ground / "store"
    act(store, "made('one')", user=0, group=0)
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return store


@pytest.mark.parametrize("lock", ["readable", "closed", "gone"])
def test_a_store_without_write_access_can_be_read(closed, act, lock):
    if lock == "closed":
        (closed / "catalog.lock").chmod(0o600)
    elif lock == "gone":
        (closed / "catalog.lock").unlink()
        (closed / "want.lock").unlink()
    before = {path: path.stat().st_mtime_ns for path in closed.rglob("*")}
    said = act(closed, READ, user=TWO)
    lines = said.splitlines()
    assert lines[0] == "7 3"
    assert lines[1].split()[-1] == "1"
    assert lines[2].startswith("StorePermissionError")
    assert ("is read from a copy of 2" in said) == (lock != "readable")
    assert {path: path.stat().st_mtime_ns for path in closed.rglob("*")} == before


def test_a_store_on_a_read_only_mount_can_be_read(closed, act, ground):
    mounted = ground / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", str(closed), str(mounted)], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(mounted)], check=True)
        lines = act(mounted, READ, user=0, group=0).splitlines()
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=True)
    assert lines[0] == "7 3"
    assert lines[2].startswith("StoreReadOnlyError")
    assert "copy" not in "".join(lines)
