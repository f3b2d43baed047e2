"""What happens when a process ends: what is due is done, quietly."""

import os
import subprocess
import sys
import time

SCRIPT = """
import stepwell

@stepwell.asset
def number():
    return 1

result = stepwell.materialize([number], store="kept")
print([step.status for step in result.steps])
"""


def ran(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=240, check=True
    )
    return done.stdout.strip(), done.stderr


def test_a_process_that_found_everything_fresh_does_what_is_due_as_it_ends(tmp_path):
    assert ran(tmp_path) == ("['executed']", "")
    os.utime(tmp_path / "kept" / "CACHEDIR.TAG", (time.time() - 4000,) * 2)
    assert ran(tmp_path) == ("['reused']", "")
    sizes = (tmp_path / "kept" / "housekeeping.json").read_text()
    assert '"older_bytes"' in sizes
