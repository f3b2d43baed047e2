"""``%stepwell VERB`` and the line magics of verbs: a line to the arguments of a command, its result shown in the notebook.

Every verb comes from `stepwell.commands`. What only a notebook does is here: values of ``load`` and ``inputs`` are bound to variables, results that
have a picture are displayed, the widgets follow a change of the store.
"""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from IPython.core.error import UsageError

from stepwell.commands.command import Command, LineError, LineParser, find_command
from stepwell.commands.wording import later_changes
from stepwell.kernel_runtime.errors import CellNameError, TrustNeededError
from stepwell.kernel_runtime.records.events import DefinitionsChanged
from stepwell.kernel_runtime.session.sql import plain
from stepwell.kernel_runtime.store.sql.statements import read_statement
from stepwell.kernel_runtime.text import moment
from stepwell.magics.cell_names import is_inner
from stepwell.magics.face import Face, say


def parser_of(name: str, sign: str = "%stepwell ") -> tuple[Command[Any, Any], LineParser]:
    """Return a command and the parser of its line.

    Raises
    ------
    UsageError
        If there is no such command.
    """
    command = find_command(name)
    if command is None:
        raise UsageError(f"%stepwell has no command {name!r}; %stepwell? lists them")
    parser = LineParser(f"{sign}{name}", add_help=False)
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=SUPPRESS)
    return command, parser


def read_words(name: str, words: Sequence[str], sign: str = "%stepwell ") -> tuple[Command[Any, Any], Namespace]:
    """Read the words of a command's line.

    Raises
    ------
    UsageError
        If they cannot be read, in one line.
    """
    command, parser = parser_of(name, sign)
    if "-h" in words or "--help" in words:
        raise UsageError(" ".join(parser.format_usage().split()).removeprefix("usage: ") + f"; {command.summary}")
    try:
        return command, parser.parse_args(words)
    except LineError as error:
        raise UsageError(str(error)) from None


def call_verb(face: Face, name: str, words: Sequence[str], sign: str = "%stepwell ") -> None:
    """Call a command with the words of a line, and show its results."""
    command, asked = read_words(name, words, sign)
    given = vars(asked)
    special = _BINDING.get(name)
    if special is not None and not asked.json:
        special(face, given)
        return
    try:
        results = command.call(given)
    except TrustNeededError as error:
        say(str(error.offer))
        say("nothing was taken over: --yes says that you trust who made it")
        return
    if name == "trust":
        face.session.publish(DefinitionsChanged(()))
    if asked.json:
        say(command.json(results))
        return
    for result in results:
        if command.displayed:
            from IPython.display import display

            display(result)  # type: ignore[no-untyped-call]
        else:
            for line in command.text(result).splitlines():
                say(line)
    if name == "why":
        say_changed_since(face, given["key"])


def say_changed_since(face: Face, key: str) -> None:
    """Say what other cells have changed of what a step read, if they have."""
    before, now = face.timeline.changed_since(key)
    if before:
        how = "names reassigned" if face.timeline.names_reassigned(key) else "changed by other cells"
        say(f"  {how}: {later_changes(key, before, now)}")


# -- values that are bound


def _load(face: Face, given: Mapping[str, Any]) -> None:
    for key in given["key"]:
        item = face.session.current(key, notebook=given["notebook"])
        value = face.session.load(key, notebook=given["notebook"], version=given["version"])
        # A step is not bound by its own name: that is the op's.
        name, note = _free_name(face, key.rpartition("/")[2].replace(".", "_").replace(":", "_"))
        if given["version"] is None:
            face.timeline.bind(name, key, item, value)
        else:
            face.namespace[name] = value
        say(f"{name} is {key} of {moment(item.created)} ({item.notebook or 'no notebook'}){note}")


def _inputs(face: Face, given: Mapping[str, Any]) -> None:
    shown = []
    for name, (keys, value) in face.session.step_inputs(given["step"]).items():
        key = keys[0] if len(keys) == 1 and not is_inner(keys[0]) else ""
        chosen, note = _free_name(face, name, key)
        if key:
            face.timeline.bind(chosen, key, face.session.current(key), value)
        else:
            face.namespace[chosen] = value
        shown.append(chosen + note)
    say(f"bound {', '.join(shown)}" if shown else f"{given['step']} has no inputs")


_BINDING: dict[str, Callable[[Face, Mapping[str, Any]], None]] = {"load": _load, "inputs": _inputs}
"""Commands whose values are bound to variables of the notebook."""


def _free_name(face: Face, name: str, key: str | None = None) -> tuple[str, str]:
    """Return a name that binds over no code and over no other asset's variable: the one that is wanted, or that with ``_`` after it.

    Parameters
    ----------
    key
        The asset whose value is to be bound, empty for any other value; None where the name is the asset's own.

    Returns
    -------
    tuple
        The name, and a note why it is another than the wanted one, empty if it is the same.
    """
    registered = {each.rpartition("/")[2]: each for each in face.session.registry.assets} if key is not None else {}
    chosen, why = name, ""
    while True:
        code = face.code_at(chosen)
        other = registered.get(chosen, key)
        if not code and other == key:
            return chosen, f" ({why})" if why else ""
        why = why or f"{name} is {code or f'the asset {other}'}"
        chosen += "_"


# -- SELECTs


def select_rows(face: Face, line: Sequence[str], cell: str | None) -> Any:
    """Return the rows of a SELECT as the type of frame that ``%config Stepwell.frame`` names.

    Parameters
    ----------
    line
        What stands after ``sql``, as one string, if anything does.
    cell
        The body of a cell; None for a line.
    """
    text = plain("\n".join([*line, cell or ""]))
    if not text:
        raise UsageError("%stepwell sql SELECT ...: one SELECT over stored assets, or FROM stepwell.runs")
    statement = read_statement(text)
    for name in statement.parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT takes ${name}, but no variable is called {name!r}",
                remedy=f"run the cell that assigns {name} first",
            )
    given = {name: face.namespace[name] for name in statement.parameters}
    return face.session.sql(text, parameters=given, frame=face.settings.frame)
