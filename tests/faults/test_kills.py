"""After ``kill -9`` at any moment the store opens, every acknowledged row is there, and nothing half-written is believed."""

import pytest
from kills import Killing, nursery

POINTS = [
    "before an object's rename", "after an object's rename", "after a put", "inside a transaction", "before the seal", "after the seal",
    "before the checkpoint", "while it checkpoints", "after the checkpoint",
]  # fmt: skip


@pytest.fixture(scope="module")
def forks():
    with nursery() as process:
        yield process


def test_kills_at_random_moments_of_several_processes_lose_nothing(tmp_path, forks):
    with Killing(tmp_path, 7, forks) as killing:
        killing.random_kills(30)
        assert killing.kills >= 30
        assert len(killing.checked) > 100


def test_kills_at_every_point_of_a_commit_lose_nothing(tmp_path, forks):
    with Killing(tmp_path, 1, forks) as killing:
        for point in POINTS:
            killing.gone(killing.start(point=point), wanting="checkpoint" in point)
            killing.check()
        killing.check_all()


@pytest.mark.parametrize("point", ["while the catalog is made", "before the catalog's rename", "after the catalog's rename"])
def test_a_kill_while_the_catalog_is_made_leaves_a_store_that_opens(tmp_path, forks, point):
    with Killing(tmp_path, 2, forks) as killing:
        killing.gone(killing.start(point=point))
        worker = killing.start()
        while not killing.check():
            pass
        killing.kill(worker)
        killing.check()
        killing.check_all()


def test_a_kill_while_a_log_is_replayed_loses_nothing(tmp_path, forks):
    with Killing(tmp_path, 3, forks) as killing:
        for point in ("while a log is replayed", "between look and replay") * 2:
            killing.gone(killing.start(point="after the seal"))
            assert (killing.store / "catalog.duckdb.wal").exists()
            killing.gone(killing.start(point=point))
        killing.check()
        killing.check_all()
