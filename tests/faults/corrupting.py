"""Runs the program that changes stored bytes, and starts it again behind a mutation that crashed it."""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

PROGRAM = Path(__file__).with_name("corruption.py")
ROOT = Path(__file__).parents[2]


def mutated(folder, seed, first, end):
    """Return what was wrong, and how often a load gave what, for some mutations."""
    wrong, outcomes = [], Counter()
    while first < end:
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), str(folder), str(seed), str(first), str(end)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        # Each mutation has a time limit; this ends a program that does not even begin.
        timer = threading.Timer(60 + (end - first), process.kill)
        timer.start()
        number = None
        for line in process.stdout:
            if line.startswith("WRONG"):
                wrong.append(line.strip())
            elif line.startswith("END"):
                outcomes += Counter(json.loads(line[4:]))
            else:
                number = int(line)
        timer.cancel()
        code = process.wait()
        if code == 0:
            break
        if number is None:
            raise AssertionError(f"the program did not begin: {code}")
        wrong.append(f"CRASH {number}: {code}")
        first = number + 1
    return wrong, outcomes
