"""SECURITY.md's table says what the tests try, no more and no less."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_table_of_attacks_is_that_of_the_tests():
    spec = importlib.util.spec_from_file_location("attacks", ROOT / "tests" / "attacks.py")
    attacks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(attacks)
    document = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert document == attacks.written(document), "write it again: python tests/attacks.py"
    found = attacks.attacks()
    assert len(found) >= 5
    for tried, holds, _ in found:
        assert tried, holds
