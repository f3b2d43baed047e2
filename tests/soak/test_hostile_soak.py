"""Every special method that misbehaves in every way, at every place where a step can meet an object."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parents[1] / "execution" / "hostile.py"


@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
def test_every_hostile_object_at_every_place():
    found = subprocess.run([sys.executable, str(PROGRAM), "0", "1"], check=False, capture_output=True, text=True)
    lines = found.stdout.splitlines()
    assert [line for line in lines if line.startswith("WRONG")] == []
    assert lines[-1].startswith("END "), lines[-3:]
