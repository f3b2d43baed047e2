"""The table of verbs by face in ``docs/commands.md``, made from the commands themselves: ``python tests/commands/verbs.py`` writes it."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "commands.md"
HEAD = """\
# Commands

Every verb is one function. Call it from Python, as `%stepwell VERB` in a notebook, or as `stepwell VERB` on the command line
(with `--store DIR` and `--json`). The verbs that use a store are also methods of an open `stepwell.Store`. `%materialize`,
`%rerun`, `%why` and `%lineage` are short for `%stepwell VERB`. If a verb needs the definitions of a notebook, the
command line takes `--notebook NB`: it runs the plain cells of that notebook in a temporary kernel, but not its assets.

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
