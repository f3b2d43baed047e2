"""Edit scenarios over the whole product, watched from outside; `tests/versions` runs all of them over the versions layer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# What the versions layer alone cannot show: data versions, early cutoff, results kept under their key, the world.
WHOLE = "dat_,rev_,cfg_,wld_,pkg_version_in_body,dir_default,cls_bound,mod_import_in_body"


@pytest.mark.parametrize(("mode", "only", "least"), [("restart", WHOLE, 20), ("same", "", 14)])
def test_no_scenario_is_stale_or_recomputed_needlessly(mode, only, least, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parents[1])])}
    done = subprocess.run(
        [sys.executable, str(HERE / "harness.py"), "adapter:Stepwell", "--mode", mode, "--only", only, "--out", str(tmp_path / "rows.json")],
        env=environment, cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    wrong = [f"{row['id']}: {row['verdict']} {row.get('detail')}" for row in rows if row["verdict"] not in {"right", "either:reran", "either:reused", "not expressible"}]
    assert wrong == [], done.stdout
    assert len([row for row in rows if row["verdict"] != "not expressible"]) >= least
