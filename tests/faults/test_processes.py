"""Several processes on one store: nothing that was acknowledged is lost, and nobody sees a lock error."""

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from stepwell.kernel_runtime.store import housekeeping
from stepwell.kernel_runtime.store.store import open_store


def recorded(store):
    """Return every key that is current, after checking that each has its step, its row and its value."""
    rows = store.catalog.ask(
        lambda connection, name: connection.execute(
            f"SELECT c.key, m.id IS NOT NULL, s.key IS NOT NULL FROM {name}.current c LEFT JOIN {name}.materializations m ON m.id = c.materialization "
            f"LEFT JOIN {name}.steps s ON s.run_id = m.run_id AND s.key = m.step_key"
        ).fetchall()
    )
    assert len({key for key, _, _ in rows}) == len(rows)
    assert all(has_row and has_step for _, has_row, has_step in rows)
    return {key for key, _, _ in rows}


@pytest.mark.parametrize(("processes", "count"), [(2, 20), (4, 8)])
def test_no_row_is_lost_when_processes_write_at_once(tmp_path, start_writer, processes, count):
    directory = tmp_path / "store"
    writers = [start_writer(directory, f"w{index}", count=count, batch=4) for index in range(processes)]
    acknowledged = set()
    for writer in writers:
        out, err = writer.communicate(timeout=240)
        assert writer.returncode == 0, err
        assert not err
        acknowledged.update(out.split())
    acknowledged.discard("begun")
    assert len(acknowledged) == processes * count * 4
    store = open_store(directory)
    assert recorded(store) == acknowledged
    assert housekeeping.sizes(store)["runs"] == processes
    store.close()


def test_a_killed_writer_loses_nothing_acknowledged_and_blocks_nobody(tmp_path, start_writer):
    directory = tmp_path / "store"
    chance = random.Random(5)
    acknowledged = set()
    for attempt in range(10):
        writer = start_writer(directory, f"k{attempt}", batch=chance.choice([1, 3, 20]))
        lines = [writer.stdout.readline() for _ in range(chance.randrange(1, 12))]
        # Not after an acknowledgement, but somewhere in the work that follows it.
        spin = chance.randrange(0, 60_000)
        while spin:
            spin -= 1
        writer.kill()
        rest, err = writer.communicate(timeout=240)
        assert "Error" not in err
        # The last line may have been cut off by the kill: then it was not acknowledged.
        whole = "".join(lines) + rest
        acknowledged.update(whole[: whole.rfind("\n") + 1].split())
    acknowledged.discard("begun")
    assert len(acknowledged) > 10
    store = open_store(directory)
    found = recorded(store)
    assert acknowledged <= found
    for key in sorted(found):
        (current,) = store.current(key)
        store.get(current.materialization.value, key=key)
    store.close()


def test_a_waiting_process_gets_the_catalog_while_another_keeps_writing(tmp_path, start_writer):
    directory = tmp_path / "store"
    writer = start_writer(directory, "busy", batch=1)
    assert writer.stdout.readline() == "begun\n"
    store = open_store(directory)
    seen = [len(store.keys())]
    for _ in range(5):
        store.close()
        seen.append(len(store.keys()))
    assert writer.poll() is None
    assert seen == sorted(seen)
    store.close()


BUSY = textwrap.dedent(
    """
    import os, sys
    from stepwell.kernel_runtime.records.runs import StepRecord
    from stepwell.kernel_runtime.store.catalog.lease import Lease
    from stepwell.kernel_runtime.store.store import open_store

    turns = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    acquire = Lease.acquire
    def counted(lease):
        acquire(lease)
        os.write(turns, b".")
    Lease.acquire = counted
    store = open_store(sys.argv[1])
    print("begun", flush=True)
    while True:
        store.record_step(StepRecord("r", "s", "skipped", 0.0)).wait()
    """
)


@pytest.fixture
def start_busy(tmp_path):
    """Start processes that record without a pause, and count every turn with the lease in one file."""
    started = []

    def start(count):
        turns = tmp_path / "turns"
        for _ in range(count):
            process = subprocess.Popen(
                [sys.executable, "-c", BUSY, str(tmp_path / "store"), str(turns)],
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
            )
            started.append(process)
        for process in started:
            assert process.stdout.readline() == "begun\n"
        return turns

    yield start
    for process in started:
        process.kill()
        process.communicate()


def turns_waited(store, turns, questions):
    """Ask several times from rest; return how many turns the others had meanwhile, each time."""
    waited = []
    for _ in range(questions):
        store.close()
        before = turns.stat().st_size
        store.keys()
        waited.append(turns.stat().st_size - before)
    return waited


def test_a_reader_among_busy_writers_is_answered_within_a_few_turns(tmp_path, start_busy):
    turns = start_busy(3)
    store = open_store(tmp_path / "store")
    waited = turns_waited(store, turns, 8)
    # Each writer's turn once, were the queue of the system's locks strict; it is not quite.
    assert max(waited) <= 12, waited
    store.close()
