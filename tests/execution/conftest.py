"""Lets the tests of execution use the hostile objects beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
