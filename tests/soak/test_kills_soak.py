"""Kills at random moments, many: ``pytest -m soak tests/soak/test_kills_soak.py -s``."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

KILLS = 500


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_five_hundred_kills_lose_nothing(tmp_path, monkeypatch):
    from kills import Killing, nursery

    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "key"))
    total = acknowledged = 0
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        with nursery() as forks, Killing(folder, seed, forks) as killing:
            killing.random_kills(KILLS // 5, workers=4)
            total += killing.kills
            acknowledged += len(killing.checked)
    print(f"{total} kills, {acknowledged} acknowledged values, none lost")
    assert total >= KILLS
