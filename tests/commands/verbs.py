"""The table of verbs by face in ``docs/commands.md``, made from the commands themselves: ``python tests/commands/verbs.py`` writes it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "commands.md"
HEAD = """\
# Commands

Every command is one function. You can call the function from Python, with `%stepwell VERB` in a notebook, or with
`stepwell VERB` on the command line, which also takes `--store DIR` and `--json`. The commands that use a store are also methods
of an open `stepwell.Store`. `%materialize`, `%rerun`, `%why` and `%lineage` are short forms of `%stepwell VERB`; `%materialize`
and `%rerun` also bind the variables of the assets. For a command that needs definitions, the command line takes the notebook
that contains them: `--notebook NB`. It runs the plain cells of the notebook in a temporary kernel, and only registers the assets.

| verb | Python | notebook | command line | what it does |
|---|---|---|---|---|
"""
DEFINITIONS = {"none": "", "optional": " [--notebook NB]", "required": " --notebook NB", "notebooks": " NB..."}


def rows():
    import stepwell
    from stepwell.commands.command import all_commands

    for command in all_commands():
        python = f"`stepwell.{command.name}`" if command.name in stepwell.__all__ else ""
        line = command.usage if command.definitions != "notebooks" else command.name
        shell = f"`stepwell {line}{DEFINITIONS[command.definitions]}`"
        yield (
            command.name,
            python,
            f"`%stepwell {command.usage}`",
            shell,
            command.summary.removesuffix(".").replace("`", ""),
        )


def text():
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows()]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in cells)


if __name__ == "__main__":
    DOCUMENT.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{DOCUMENT}\n")
