"""The magics: their flags, their help, the settings of ``%config Stepwell``, and ``%stepwell VERB``.

Each magic is thin: it reads its line and hands over to the module that knows. Cell magics are line magics too, since IPython refuses
an empty cell before it asks us: the line form of ``%asset clean`` says what state the asset is in.

Verbs come from `stepwell.commands`. What only a notebook does with them is here: values of ``load`` and ``inputs`` are bound to variables,
results that have a picture are displayed, the widgets follow a change of the store.
"""

from __future__ import annotations

import re
import shlex
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, observe

from stepwell.commands import VERBS
from stepwell.commands.command import Command, LineError, LineParser, all_commands, find_command
from stepwell.commands.inputs import step_inputs
from stepwell.commands.sql import query
from stepwell.commands.wording import later_changes, result_lines, step_lines, work_line
from stepwell.kernel_runtime.definitions.assets import AssetsDefinition
from stepwell.kernel_runtime.errors import CellNameError, InvalidInvocationError, TrustNeededError
from stepwell.kernel_runtime.records.runs import DefinitionsChanged
from stepwell.kernel_runtime.session.sql import plain
from stepwell.kernel_runtime.store.sql.statements import read_statement
from stepwell.kernel_runtime.text import moment
from stepwell.magics import asset_cells, graph_cells
from stepwell.magics.cell_inputs import is_inner
from stepwell.magics.cell_source import cell_text, read_cell
from stepwell.magics.face import Face, Progress, say
from stepwell.magics.flags import (
    argument,
    asset_flags,
    magic_arguments,
    op_flags,
    read_line,
    read_signature,
    split_arrow,
)
from stepwell.magics.running import bind, bind_loadable, displays_off, registry_kept, run_definition, users_errors

Maker: TypeAlias = Callable[[Face, Namespace, str, str], tuple[AssetsDefinition, bool]]
"""Makes the definition of a cell, and says whether its value is displayed after the run: the body displays nothing by itself."""
_OF_HISTORY = re.compile(r"\s*($|-[lg]\b|[\d~])")


@magics_class
class Stepwell(Magics):
    """Settings of Stepwell's magics."""

    upstream_budget = Float(
        60.0,
        help="Seconds of known upstream work above which a cell does not start it by itself; interactive use only.",
    ).tag(config=True)
    lines = Bool(True, help="Whether a run says in a line or two what it did.").tag(config=True)
    seed_steps = Bool(
        True,
        help="Whether random and numpy.random are seeded from the step's key before each body, and restored after the run.",
    ).tag(config=True)
    show_stale = Bool(True, help="Whether a plain cell that makes assets stale ends with a line that names them.").tag(
        config=True
    )
    frame = Enum(
        ["auto", "pandas", "pyarrow", "polars"],
        default_value="auto",
        help="The type of frame that %%sql_asset gives; auto is pandas where it is installed, else pyarrow.",
    ).tag(config=True)

    face: Face
    """Set when the extension is loaded."""
    own_rerun: Callable[[str], Any] | None = None
    """IPython's magic of the same name."""

    @observe("seed_steps")
    def _seed_steps(self, change: Any) -> None:
        if hasattr(self, "face"):
            self.face.session.seed_steps = change["new"]

    # -- assets

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/flights.")
    @asset_flags(inputs=True)
    @line_cell_magic
    def asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset of a cell: computed once, kept, and reused while nothing that it depends on has changed.

        The value is the variable named like the asset if the body assigns it, else the last expression.
        """
        line, variable = split_arrow(line)
        self._define("asset", line, cell, asset_cells.asset_of, variable=variable)

    @magic_arguments()
    @argument("names", nargs="+", help="The assets' names: one variable of the body each.")
    @asset_flags(inputs=True)
    @line_cell_magic
    def multi_asset(self, line: str, cell: str | None = None) -> None:
        """Make several assets of a cell: one variable per name."""
        self._define("multi_asset", line, cell, asset_cells.multi_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/daily.")
    @asset_flags(inputs=True, cell=False)
    @line_cell_magic
    def sql_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset of one SELECT over assets; $name takes a notebook variable."""
        self._define("sql_asset", line, cell, asset_cells.sql_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/report.")
    @asset_flags(inputs=False, cell=False)
    @line_cell_magic
    def graph_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset of a cell that calls ops, with assets by name: transform(fetch(clean), top=5)."""
        self._define("graph_asset", line, cell, graph_cells.graph_asset_of)

    def _define(self, magic: str, line: str, cell: str | None, make: Maker, **more: Any) -> None:
        """Do what the line of an asset's cell says; without a cell, say in which state the assets are."""
        arguments = read_line(getattr(self, magic), line)
        vars(arguments).update(more)
        names = arguments.names if magic == "multi_asset" else [arguments.name]
        if cell is None:
            for name in names:
                call_verb(self.face, "why", [name], "%")
            return
        with users_errors(self.face):
            if getattr(arguments, "plain", False):
                text = cell_text(self.shell, self.face.running, magic, line, cell)
                asset_cells.run_plain(self.face, read_cell(self.shell, text, " ".join(names)))
                return
            definition, shown = make(self.face, arguments, line, cell)
        run_definition(self.face, definition, arguments, show_value=shown)

    # -- ops, graphs, jobs

    @magic_arguments()
    @argument(
        "signature",
        nargs="*",
        help="The op's name, its inputs, its config, its outputs: transform(data, *, top=10) -> out.",
    )
    @op_flags()
    @line_cell_magic
    def op(self, line: str, cell: str | None = None) -> None:
        """Make an op of a cell, such as %%op transform(data, *, top=10) -> out.

        Names in the parentheses are inputs; after `*` stand config values with their defaults, which a composition sets by
        keyword with a constant. The value is the variable named after `->`, else the one named like the op, else the last
        expression.
        """
        magic = "op"

        def make(face: Face, line: str, cell: str) -> Any:
            signature, arguments = read_signature(getattr(self, magic), line)
            return asset_cells.op_of(face, arguments, signature, line, cell)

        self._bind_composable(magic, line, cell, make)

    @line_cell_magic
    def graph(self, line: str, cell: str | None = None) -> None:
        """Make a graph of a cell that calls ops, such as %%graph tidy(data).

        Assets by name are read as they are stored, never materialised. The cell ends in what the graph gives.
        """
        self._bind_composable("graph", line, cell, graph_cells.graph_of_cell)

    @line_cell_magic
    def job(self, line: str, cell: str | None = None) -> None:
        """Make a job of a cell that calls ops and graphs, such as %%job mail_worst.

        Assets by name are read as they are stored, never materialised. A job's ops are never skipped. Run it with
        mail_worst.execute().
        """

        def register(face: Face, line: str, cell: str) -> Any:
            made = graph_cells.job_of(face, line, cell)
            with registry_kept(face):
                face.session.registry.register(made)
            return made

        self._bind_composable("job", line, cell, register)

    def _bind_composable(self, magic: str, line: str, cell: str | None, make: Callable[[Face, str, str], Any]) -> None:
        words = line.split()
        if not words or any(word in ("-h", "--help") for word in words):
            raise UsageError(f"%%{magic}? explains its first line")
        if cell is None:
            raise UsageError(f"%%{magic} is the first line of a cell: the code stands below it")
        with users_errors(self.face):
            made = make(self.face, line, cell)
        self.face.namespace[made.name] = made
        run = f"; run it with {made.name}.execute()" if magic == "job" else ""
        self.face.say(f"{made!r}{run}")

    # -- runs

    @line_magic
    def materialize(self, line: str) -> None:
        """Bring assets and everything that they need up to date, bind them, and display nothing."""
        _, asked = read_words("materialize", shlex.split(line), "%")
        face = self.face
        if face.defines_only:
            return
        for key in asked.targets:
            if key in face.session.registry.jobs:
                raise InvalidInvocationError(f"{key!r} is a job, not an asset", remedy=f"run it with {key}.execute()")
        waiting = [state for state in face.session.states(asked.targets or None).values() if state.must_run]
        line = work_line(waiting) if len(waiting) > 1 and asked.upstream else ""
        with users_errors(face), displays_off(face, off=True), Progress(face, line):
            result = face.session.materialize(asked.targets or None, force=asked.force, upstream=asked.upstream)
        targets = result.run.targets
        result = bind_loadable(face, targets, result, lambda: face.session.materialize(targets, force=True), cell=False)
        for told in result_lines(result):
            face.say(told)

    @line_magic
    def rerun(self, line: str) -> None:
        """Run single steps on what is stored for the others, even where that is stale.

        With a number, a range, -l or -g, or without anything, it is IPython's own %rerun of the history.
        """
        if self.own_rerun is not None and _OF_HISTORY.match(line):
            self.own_rerun(line)
            return
        _, asked = read_words("rerun", shlex.split(line), "%")
        face = self.face
        if face.defines_only:
            return
        with users_errors(face):
            result = face.session.rerun(asked.steps, show=asked.steps)
        bind(face, [key for key in result.run.targets if key in face.session.registry.assets], result, cell=False)
        for told in step_lines(result):
            face.say(told)

    @line_magic
    def why(self, line: str) -> None:
        """Say what state an asset or step is in, and the smallest cause of it; --accept marks an edit as not mattering."""
        call_verb(self.face, "why", shlex.split(line), "%")

    @line_magic
    def lineage(self, line: str) -> Any:
        """Show the graph of assets, their steps and their states; keys limit it."""
        from stepwell.widgets import show

        show(self.face.session, shlex.split(line) or None)

    @no_var_expand
    @line_cell_magic
    def stepwell(self, line: str, cell: str | None = None) -> Any:
        """Look into the session: %stepwell VERB ..., with the arguments of the command line; %stepwell VERB --help explains them."""
        if line.split(maxsplit=1)[:1] == ["sql"]:
            return select_rows(self.face, line.split(maxsplit=1)[1:], cell)
        if cell is not None:
            raise UsageError("%%stepwell sql is the only command with a body: the SELECT")
        # Dollars and braces belong to the SELECT; elsewhere they are IPython's.
        words = shlex.split(self.face.shell.var_expand(line))
        if not words or words[0] in ("-h", "--help"):
            raise UsageError(f"%stepwell {' | '.join(VERBS)}; %stepwell? explains them")
        if words[0] in ("lineage", "materialize", "rerun"):
            return getattr(self, words[0])(shlex.join(words[1:]))
        call_verb(self.face, words[0], words[1:])
        return None


# -- verbs


def parser_of(name: str, sign: str = "%stepwell ") -> tuple[Command[Any, Any], LineParser]:
    """Return a command and the parser of its line.

    Raises
    ------
    UsageError
        If the command is unknown.
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
    for name, (keys, value) in step_inputs(face.session, given["step"]).items():
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
    return query(face.session, text, parameters=given, frame=face.settings.frame)


_verbs = "\n".join(f"{each.usage}\n    {each.summary}" for each in all_commands())
Stepwell.stepwell.__doc__ = f"{Stepwell.stepwell.__doc__}\n\n{_verbs}"
for _magic in (Stepwell.materialize, Stepwell.rerun, Stepwell.why, Stepwell.lineage):
    _magic.__doc__ = f"{_magic.__doc__}\n\n{parser_of(_magic.__name__, '%')[1].format_help()}"
