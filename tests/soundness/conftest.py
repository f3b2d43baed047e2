"""Lets the tests of this folder share modules, in this process and in those that they start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
