"""Edit scenarios over the whole product, watched from outside: the shared ones, and ours of what real notebooks hold (`more.jsonl`)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RIGHT = {"right", "either:reran", "either:reused"}


@pytest.mark.parametrize(
    ("scenarios", "mode", "count"),
    [("scenarios", "restart", 143), ("scenarios", "same", 14), ("more", "restart", 78), ("more", "same", 71)],
)
def test_no_scenario_is_stale_or_recomputed_needlessly(scenarios, mode, count, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    done = subprocess.run(
        [sys.executable, str(HERE / "harness.py"), "adapter:Stepwell", "--scenarios", str(HERE / f"{scenarios}.jsonl"), "--mode", mode, "--out", str(tmp_path / "rows.json")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [f"{row['id']}: {row['verdict']} {row.get('detail')}" for row in rows if row["verdict"] not in RIGHT] == [], (
        done.stderr[-2000:]
    )
    assert len(rows) == count
