"""The table of attacks in SECURITY.md, made of the marks of the tests that try them: ``python tests/attacks.py`` writes it."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).resolve().parent
DOCUMENT = TESTS.parent / "SECURITY.md"
BEGIN, END = "<!-- attacks: written by tests/attacks.py -->", "<!-- end of attacks -->"


def attacks() -> list[tuple[str, str, str]]:
    """Return what each mark says is tried and what holds, with the file of its test."""
    found = []
    for path in sorted(TESTS.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "mark.attack" not in text or path == Path(__file__).resolve():
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.attack":
                given = [
                    *node.args,
                    *(each.value for each in sorted(node.keywords, key=lambda word: word.arg != "tried")),
                ]
                tried, holds = map(ast.literal_eval, given)
                found.append((tried, holds, path.relative_to(TESTS.parent).as_posix()))
    return sorted(dict.fromkeys(found), key=lambda row: (row[2], row[0]))


def table() -> str:
    """Return the table, between its marks."""
    rows = [f"| {tried} | {holds} | [{Path(file).stem}]({file}) |".replace("\n", " ") for tried, holds, file in attacks()]
    return "\n".join([BEGIN, "| what is tried | what holds | test |", "|---|---|---|", *rows, END])


def written(document: str) -> str:
    """Return a document with the table as it is to be."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + table() + after


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
