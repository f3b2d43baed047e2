"""A claim keeps everybody else away until it is let go or its process ends, and leaves no file behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from stepwell.kernel_runtime.errors import UntrustedStoreError
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.locks import lock, open_file, remove_locked
from stepwell.kernel_runtime.store.processes import Claims

ROOT = Path(__file__).resolve().parents[2]
ME = Claimant("prepare.ipynb", 4711, "host", 1.5)
HOLDER = """
import sys
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.processes import Claims
from stepwell.kernel_runtime.store.folder import Folder
from pathlib import Path
claims = Claims(Folder(Path(sys.argv[1])))
held = [claims.take(key, Claimant("other.ipynb", 1, "h", 2.0)) for key in sys.argv[2:]]
print(all(held), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def start():
    """Start Python processes; whatever still runs at the end is killed."""
    started = []

    def start(program, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


K, LEFT1, LEFT2, LIVE, ANOTHER = (f"{number:032x}" for number in range(5))


def names(folder):
    return sorted(path.name for path in (folder / "claims").iterdir())


def test_a_claim_is_one_persons_until_it_is_let_go(tmp_path):
    one, other = Claims(Folder(tmp_path)), Claims(Folder(tmp_path))
    assert not one.is_there(K)
    claim = one.take(K, ME)
    assert one.take(K, ME) is None
    assert other.take(K, ME) is None
    assert other.is_there(K)
    assert other.claimant(K) == ME
    assert other.take(ANOTHER, ME) is not None
    claim.release()
    claim.release()
    assert names(tmp_path) == [ANOTHER]
    assert other.claimant(K) == Claimant()
    again = other.take(K, ME)
    claim.release()
    assert one.take(K, ME) is None, "a claim that was let go took another one's file away"
    again.release()


def test_another_processs_claim_is_free_the_moment_it_is_killed(tmp_path, start):
    process = start(HOLDER, tmp_path, K, LEFT1, LEFT2)
    assert process.stdout.readline() == "True\n"
    claims = Claims(Folder(tmp_path))
    assert claims.take(K, ME) is None
    assert claims.claimant(K).notebook == "other.ipynb"
    live = start(HOLDER, tmp_path, LIVE)
    assert live.stdout.readline() == "True\n"
    process.kill()
    process.wait()
    claim = claims.take(K, ME)
    assert claim is not None
    # What the killed process left was swept, what is held was not.
    assert names(tmp_path) == sorted([K, LIVE])
    assert claims.take(LIVE, ME) is None
    claim.release()
    assert names(tmp_path) == [LIVE]


def test_a_process_that_ends_in_order_leaves_no_file(tmp_path, start):
    process = start(HOLDER, tmp_path, K)
    assert process.stdout.readline() == "True\n"
    process.communicate("\n", timeout=240)
    assert names(tmp_path) == []


RACER = """
import os, sys
from pathlib import Path
from stepwell.kernel_runtime.records.runs import Claimant
from stepwell.kernel_runtime.store.processes import Claims
from stepwell.kernel_runtime.store.folder import Folder
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
inside = folder / "inside"
got = missed = 0
while got < rounds:
    # A new folder object each time: it sweeps with its first claim.
    claim = Claims(Folder(folder)).take("0" * 32, Claimant())
    if claim is None:
        missed += 1
        continue
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
    inside.unlink()
    claim.release()
    got += 1
print(got, missed)
"""


def race(start, folder, processes, rounds):
    racers = [start(RACER, folder, rounds) for _ in range(processes)]
    for racer in racers:
        out, _ = racer.communicate(timeout=240)
        assert racer.returncode == 0
        assert out.split()[0] == str(rounds)
    assert names(folder) == []


def test_removing_and_making_the_file_again_lets_no_two_in(tmp_path, start):
    race(start, tmp_path, 3, 150)


def test_a_lock_on_a_file_that_was_removed_does_not_count(tmp_path):
    folder = Folder(tmp_path)
    early = open_file(folder, "file")
    holder = open_file(folder, "file")
    assert lock(holder, block=False)
    assert not lock(early, block=False)
    remove_locked(folder, "file", holder)
    assert lock(early, block=False)
    assert not folder.is_file("file", early)
    later = open_file(folder, "file")
    assert lock(later, block=False)
    assert folder.is_file("file", later)
    os.close(early)
    os.close(later)


def test_a_claim_is_not_written_through_another_name_of_its_file(tmp_path):
    (tmp_path / "store" / "claims").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    os.link(tmp_path / "precious", tmp_path / "store" / "claims" / K)
    with pytest.raises(UntrustedStoreError, match="hard link"):
        Claims(Folder(tmp_path / "store")).take(K, ME)
    assert (tmp_path / "precious").read_text() == "precious"


def test_where_no_claim_can_be_had_everybody_goes_on(tmp_path):
    (tmp_path / "claims").write_text("in the way")
    claims = Claims(Folder(tmp_path))
    one, two = claims.take(K, ME), claims.take(K, ME)
    assert one is not None
    assert two is not None
    one.release()
    assert not claims.is_there(K)
    assert claims.claimant(K) == Claimant()
    assert (tmp_path / "claims").read_text() == "in the way"


def test_threads_of_one_process_keep_each_other_away(tmp_path):
    inside, most = [], []

    def work():
        claims = Claims(Folder(tmp_path))
        for _ in range(50):
            while (claim := claims.take(K, ME)) is None:
                pass
            inside.append(1)
            most.append(len(inside))
            inside.pop()
            claim.release()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(most) == {1}
    assert names(tmp_path) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork")
def test_a_forked_child_neither_frees_nor_keeps_its_parents_claim(tmp_path, start):
    parent = start(
        """
        import os, sys, signal
        from pathlib import Path
        from stepwell.kernel_runtime.records.runs import Claimant
        from stepwell.kernel_runtime.store.processes import Claims
        from stepwell.kernel_runtime.store.folder import Folder
        claims = Claims(Folder(Path(sys.argv[1])))
        claim = claims.take("0" * 32, Claimant())
        if os.fork() == 0:
            claim.release()
            assert claims.take("0" * 32, Claimant()) is None
            sys.exit(0)  # runs what is to run at the end of a process
        os.wait()
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            os.close(1)
            signal.pause()
        sys.stdin.readline()
        """,
        tmp_path,
    )
    living = int(parent.stdout.readline())
    try:
        claims = Claims(Folder(tmp_path))
        assert claims.take(K, ME) is None
        assert names(tmp_path) == [K]
        parent.kill()
        parent.wait()
        assert claims.take(K, ME) is not None
    finally:
        os.kill(living, signal.SIGKILL)


def test_text_that_says_nothing_is_nobody(tmp_path):
    (tmp_path / "claims").mkdir()
    for text in ("", "{", "[]", json.dumps({"notebook": "n"}), json.dumps({"notebook": 1, "pid": "x"}), "\xff" * 9000):
        (tmp_path / "claims" / K).write_text(text)
        assert Claims(Folder(tmp_path)).claimant(K) == Claimant()
