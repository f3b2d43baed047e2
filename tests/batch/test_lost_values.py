"""A stored value that cannot be loaded here counts as missing in a notebook, too: one line, and it is computed again."""

from pathlib import Path

CELLS = (
    "%load_ext stepwell",
    "%%asset small\n{'x': [1, 2]}",
    "%%asset table\nimport pandas as pd\npd.DataFrame({'a': range(20_000)})",
    "%%asset top\nsum(small['x']) + len(table)",
    "small",
    "print(top, len(table), small)",
)


def test_what_another_key_signed_is_computed_again(stepwell, write, project):
    write("n.ipynb", *CELLS)
    assert stepwell("run", "n.ipynb").code == 0
    theirs = {"STEPWELL_KEY_FILE": str(project / "another")}
    ended = stepwell("run", "n.ipynb", **theirs)
    assert ended.code == 0, ended.err
    # Each by its own cell; the number is data, and needs no signature.
    assert "steps: 2 executed, 3 reused" in ended.err
    assert "signed with another key" in Path(ended.out.strip()).read_text()
    ended = stepwell("run", "n.ipynb", **theirs)
    assert "steps: 5 reused" in ended.err


def test_what_is_damaged_is_computed_again(stepwell, write, project):
    write("n.ipynb", *CELLS)
    assert stepwell("run", "n.ipynb").code == 0
    # A byte of the header; and an end cut short by less than a header, which the size alone does not tell.
    for change in (lambda data: data[:70] + bytes([data[70] ^ 255]) + data[71:], lambda data: data[:-1]):
        (path,) = (project / ".stepwell" / "objects").rglob("*.*")
        path.write_bytes(change(path.read_bytes()))
        ended = stepwell("run", "n.ipynb")
        assert ended.code == 0, ended.err
        said = Path(ended.out.strip()).read_text()
        assert "the stored value of 'table' is damaged" in said
        assert "computed again" in said
        ended = stepwell("run", "n.ipynb")
        assert ended.code == 0, ended.err
