"""A process for `test_places`: replaces one place of a store after the other, and runs every command after each replacement.

It prints one line of JSON for each place. Whoever reads the lines notices a command that hangs.
"""

import contextlib
import io
import json
import os
import shutil
import socket
import sys
from pathlib import Path

import numpy as np

import stepwell
from stepwell.batch.command_line import main
from stepwell.errors import StepwellError
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store import housekeeping


@stepwell.asset
def large():
    return np.arange(20_000)


@stepwell.asset
def other():
    return np.arange(30_000)


@stepwell.asset
def small():
    return 5


def python(function):
    def run(store):
        try:
            function(store)
        except StepwellError as error:
            return type(error).__name__
        return "done"

    return run


def command(*words):
    def run(store):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            return main([*words, "--store", str(store)])

    return run


COMMANDS = {
    "load": python(lambda store: stepwell.load("large", store=store)),
    "load of a small value": python(lambda store: stepwell.load("small", store=store)),
    "sql": python(lambda store: stepwell.sql("FROM stepwell.runs", store=store)),
    "sql of a value": python(lambda store: stepwell.sql("FROM large", store=store)),
    "versions": python(lambda store: stepwell.versions("large", store=store)),
    "stepwell status": command("status"),
    "stepwell runs": command("runs"),
    "stepwell pack": command("pack", "large", "pack.zip"),
    "stepwell trust": command("trust", "--all", "--yes"),
    "stepwell gc": command("gc"),
    "housekeeping": python(lambda store: housekeeping.housekeep(get_session().open(store, create=False))),
    "materialize": python(lambda store: stepwell.materialize([large, small, other], store=store)),
    "stepwell keep": command("keep", "large", "--versions", "1"),
    "rename": python(lambda store: stepwell.rename("small", "renamed", store=store)),
    "gc of everything": python(
        lambda store: housekeeping.collect(get_session().open(store, create=False), grace=0, compact=True)
    ),
    "stepwell forget": command("forget", "other", "--yes"),
    "stepwell doctor": command("doctor", "--clean"),
    "stepwell doctor --rebuild": command("doctor", "--rebuild"),
}


def replaced(path, kind, precious):
    """Put something else in the place of a file or folder; return false where that is not possible for it."""
    if kind == "no rights":
        if not path.exists():
            return False
        path.chmod(0)
        return True
    if kind == "hard link" and (path.is_dir() or not path.exists()):
        return False
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    if kind == "link to a file":
        path.symlink_to(precious / "file")
    elif kind == "link to a folder":
        path.symlink_to(precious / "folder")
    elif kind == "link to nothing":
        path.symlink_to(precious / "nothing")
    elif kind == "hard link":
        os.link(precious / "file", path)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        # A path that is long cannot be bound.
        os.chdir(path.parent)
        socket.socket(socket.AF_UNIX).bind(path.name)
    elif kind == "device":
        os.mknod(path, 0o20666, os.makedev(1, 3))
    return True


def state(folder):
    """Return all that a program could change of a folder."""
    found = {}
    for path in sorted([folder, *folder.rglob("*")]):
        status = path.lstat()
        data = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime_ns, data.hex())
    return found


def tried(template, work, place, kind, precious):
    store = work / "project" / ".stepwell"
    shutil.rmtree(work, ignore_errors=True)
    store.parent.mkdir(parents=True)
    os.chdir(work)
    shutil.copytree(template, store)
    before = state(precious)
    if place and not replaced(store / place, kind, precious):
        return None
    os.chdir(work)
    results = {}
    for name, run in COMMANDS.items():
        try:
            results[name] = run(store)
        except BaseException as error:
            results[name] = repr(error)[:300]
    session = get_session()
    for opened in session.stores.values():
        with contextlib.suppress(StepwellError):
            opened.close()
    session.stores.clear()
    for path in store.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    changed = [path for path, was in before.items() if state(precious).get(path) != was]
    return {"place": place, "results": results, "changed": changed + [p for p in state(precious) if p not in before]}


if __name__ == "__main__":
    template, work, precious, kind, user = (
        Path(sys.argv[1]),
        Path(sys.argv[2]),
        Path(sys.argv[3]),
        sys.argv[4],
        int(sys.argv[5]),
    )
    if user:
        # What is imported when it is needed must not be looked for as another user.
        tried(template, work, "", kind, precious)
        shutil.rmtree(work)
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    for place in sys.argv[6:]:
        print(json.dumps(tried(template, work, place, kind, precious)), flush=True)
