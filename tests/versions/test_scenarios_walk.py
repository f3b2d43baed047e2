"""Edit scenarios over the versions layer alone, where a wrong verdict points at a version; `tests/soundness` runs all over the product."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HARNESS = HERE.parent / "soundness" / "harness.py"


@pytest.mark.parametrize(("scenarios", "mode", "count"), [("scenarios", "same", 14), ("more", "same", 71)])
def test_no_scenario_is_stale_or_recomputed_needlessly(scenarios, mode, count, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    subprocess.run(
        [sys.executable, str(HARNESS), "scenario_walk:Walk", "--scenarios", str(HARNESS.parent / f"{scenarios}.jsonl"), "--mode", mode, "--out", str(tmp_path / "rows.json")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert len(rows) == count
    wrong = [
        f"{row['id']}: {row['verdict']} {row.get('detail')}"
        for row in rows
        if row["verdict"] not in {"right", "either:reran", "either:reused"}
    ]
    # SQL is not the layer's to run.
    assert [line for line in wrong if "needs sql" not in line] == []
