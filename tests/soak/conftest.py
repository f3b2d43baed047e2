"""Lets the long runs use the fuzzer and the processes of the suite, and deselects them unless ``-m`` asks for them."""

import sys
from pathlib import Path

for folder in ("soundness", "faults", "store", "plain"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


def pytest_collection_modifyitems(config, items):
    # An expression of the command line replaces one in pyproject.toml: "not browser" must not bring these in.
    if "soak" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
