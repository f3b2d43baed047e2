"""The magics: their flags, their help, the settings of ``%config Stepwell``, and ``%stepwell VERB``.

A magic only parses its line and calls another module. Cell magics are also line magics, because IPython rejects a cell magic with an empty
cell: the line ``%asset clean`` prints the state of the asset.

The verbs are the commands of `stepwell.commands`. This module adds the parts that are specific to notebooks: it binds the values of ``load``
and ``inputs`` to variables, displays results that have a picture, and refreshes the widgets after a change of the store.
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
from stepwell.kernel_runtime.session.sql import without_semicolons
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
from stepwell.magics.running import bind, bind_loadable, displays_off, registry_restored, run_definition, user_errors

Maker: TypeAlias = Callable[[Face, Namespace, str, str], tuple[AssetsDefinition, bool]]
"""A function that returns the definition of a cell, and True if the value must be displayed after the run."""
_OF_HISTORY = re.compile(r"\s*($|-[lg]\b|[\d~])")


@magics_class
class Stepwell(Magics):
    """Settings of Stepwell's magics."""

    upstream_budget = Float(
        60.0,
        help="A cell does not start upstream work that is known to take longer (seconds); interactive use only.",
    ).tag(config=True)
    lines = Bool(True, help="Print a line or two about each run.").tag(config=True)
    seed_steps = Bool(
        True,
        help="Seed random and numpy.random from the step's key before each body, and restore them after the run.",
    ).tag(config=True)
    show_stale = Bool(True, help="Name the assets that a plain cell makes stale, in a line at its end.").tag(
        config=True
    )
    frame = Enum(
        ["auto", "pandas", "pyarrow", "polars"],
        default_value="auto",
        help="The type of frame that %%sql_asset returns; auto is pandas if it is installed, else pyarrow.",
    ).tag(config=True)

    face: Face
    """The state that the magics share; set when the extension is loaded."""
    ipython_rerun: Callable[[str], Any] | None = None
    """IPython's magic ``%rerun``; None if IPython does not have it."""

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
        """Turn a cell into an asset: computed once, stored, and reused until something that it depends on changes.

        The value is the variable with the name of the asset if the body assigns it, else the last expression.
        """
        line, variable = split_arrow(line)
        self._define("asset", line, cell, asset_cells.asset_of, variable=variable)

    @magic_arguments()
    @argument("names", nargs="+", help="The assets' names; the body assigns one variable for each.")
    @asset_flags(inputs=True)
    @line_cell_magic
    def multi_asset(self, line: str, cell: str | None = None) -> None:
        """Turn a cell into several assets, one variable per name."""
        self._define("multi_asset", line, cell, asset_cells.multi_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/daily.")
    @asset_flags(inputs=True, cell=False)
    @line_cell_magic
    def sql_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset from one SELECT over assets; $name refers to a variable of the notebook."""
        self._define("sql_asset", line, cell, asset_cells.sql_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/report.")
    @asset_flags(inputs=False, cell=False)
    @line_cell_magic
    def graph_asset(self, line: str, cell: str | None = None) -> None:
        """Turn a cell that calls ops on assets into an asset, such as transform(fetch(clean), top=5)."""
        self._define("graph_asset", line, cell, graph_cells.graph_asset_of)

    def _define(self, magic: str, line: str, cell: str | None, make: Maker, **options: Any) -> None:
        """Define and run the assets of a cell; without a cell, print the states of the assets."""
        arguments = read_line(getattr(self, magic), line)
        vars(arguments).update(options)
        names = arguments.names if magic == "multi_asset" else [arguments.name]
        if cell is None:
            for name in names:
                call_verb(self.face, "why", [name], "%")
            return
        with user_errors(self.face):
            if getattr(arguments, "plain", False):
                text = cell_text(self.shell, self.face.running, magic, line, cell)
                asset_cells.run_as_plain_cell(self.face, read_cell(self.shell, text, " ".join(names)))
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
        """Turn a cell into an op, such as %%op transform(data, *, top=10) -> out.

        Names in the parentheses are inputs. Names after `*` are config values with defaults; a graph sets them by keyword to
        constants. The value is the variable named after `->`, else the variable with the name of the op, else the last
        expression.
        """
        magic = "op"

        def make(face: Face, line: str, cell: str) -> Any:
            signature, arguments = read_signature(getattr(self, magic), line)
            return asset_cells.op_of(face, arguments, signature, line, cell)

        self._bind_composable(magic, line, cell, make)

    @line_cell_magic
    def graph(self, line: str, cell: str | None = None) -> None:
        """Turn a cell that calls ops into a graph, such as %%graph tidy(data).

        Assets are read from the store by name and never materialized. The last expression is the value of the graph.
        """
        self._bind_composable("graph", line, cell, graph_cells.graph_of_cell)

    @line_cell_magic
    def job(self, line: str, cell: str | None = None) -> None:
        """Turn a cell that calls ops and graphs into a job, such as %%job mail_worst.

        Assets are read from the store by name and never materialized. The ops of a job are never skipped. Run it with
        mail_worst.execute().
        """

        def register(face: Face, line: str, cell: str) -> Any:
            job = graph_cells.job_of(face, line, cell)
            with registry_restored(face):
                face.session.registry.register(job)
            return job

        self._bind_composable("job", line, cell, register)

    def _bind_composable(self, magic: str, line: str, cell: str | None, make: Callable[[Face, str, str], Any]) -> None:
        words = line.split()
        if not words or any(word in ("-h", "--help") for word in words):
            raise UsageError(f"%%{magic}? explains its first line")
        if cell is None:
            raise UsageError(f"%%{magic} is the first line of a cell: write the code below it")
        with user_errors(self.face):
            definition = make(self.face, line, cell)
        self.face.namespace[definition.name] = definition
        run = f"; run it with {definition.name}.execute()" if magic == "job" else ""
        self.face.say(f"{definition!r}{run}")

    # -- runs

    @line_magic
    def materialize(self, line: str) -> None:
        """Compute assets and their upstream if they are not current, and bind them; display nothing."""
        _, options = read_words("materialize", shlex.split(line), "%")
        face = self.face
        if face.defines_only:
            return
        for key in options.targets:
            if key in face.session.registry.jobs:
                raise InvalidInvocationError(f"{key!r} is a job, not an asset", remedy=f"run it with {key}.execute()")
        waiting = [state for state in face.session.states(options.targets or None).values() if state.must_run]
        line = work_line(waiting) if len(waiting) > 1 and options.upstream else ""
        with user_errors(face), displays_off(face, off=True), Progress(face, line):
            result = face.session.materialize(options.targets or None, force=options.force, upstream=options.upstream)
        targets = result.run.targets
        result = bind_loadable(face, targets, result, lambda: face.session.materialize(targets, force=True), cell=False)
        for line_of_result in result_lines(result):
            face.say(line_of_result)

    @line_magic
    def rerun(self, line: str) -> None:
        """Run single steps on the stored results of the other steps, even if these are stale.

        With a number, a range, -l or -g, or without arguments, run IPython's %rerun of the history.
        """
        if self.ipython_rerun is not None and _OF_HISTORY.match(line):
            self.ipython_rerun(line)
            return
        _, options = read_words("rerun", shlex.split(line), "%")
        face = self.face
        if face.defines_only:
            return
        with user_errors(face):
            result = face.session.rerun(options.steps, show=options.steps)
        bind(face, [key for key in result.run.targets if key in face.session.registry.assets], result, cell=False)
        for line_of_result in step_lines(result):
            face.say(line_of_result)

    @line_magic
    def why(self, line: str) -> None:
        """Explain the state of an asset or step by its smallest cause; --accept marks an edit as irrelevant."""
        call_verb(self.face, "why", shlex.split(line), "%")

    @line_magic
    def lineage(self, line: str) -> Any:
        """Show the graph of assets, their steps and their states; keys limit it to these assets."""
        from stepwell.widgets import show

        show(self.face.session, shlex.split(line) or None)

    @no_var_expand
    @line_cell_magic
    def stepwell(self, line: str, cell: str | None = None) -> Any:
        """Run a command of Stepwell: %stepwell VERB, with the arguments of the command line; %stepwell VERB --help explains them."""
        if line.split(maxsplit=1)[:1] == ["sql"]:
            return select_rows(self.face, line.split(maxsplit=1)[1:], cell)
        if cell is not None:
            raise UsageError("%%stepwell sql is the only command with a body: the SELECT")
        # Dollars and braces in a SELECT are part of the SQL; in other commands IPython expands them.
        words = shlex.split(self.face.shell.var_expand(line))
        if not words or words[0] in ("-h", "--help"):
            raise UsageError(f"%stepwell {' | '.join(VERBS)}; %stepwell? explains them")
        if words[0] in ("lineage", "materialize", "rerun"):
            return getattr(self, words[0])(shlex.join(words[1:]))
        call_verb(self.face, words[0], words[1:])
        return None


# -- verbs


def parser_of(name: str, prefix: str = "%stepwell ") -> tuple[Command[Any, Any], LineParser]:
    """Return a command and the parser of its arguments.

    Raises
    ------
    UsageError
        If the command is unknown.
    """
    command = find_command(name)
    if command is None:
        raise UsageError(f"%stepwell has no command {name!r}; %stepwell? lists them")
    parser = LineParser(f"{prefix}{name}", add_help=False)
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=SUPPRESS)
    return command, parser


def read_words(name: str, words: Sequence[str], prefix: str = "%stepwell ") -> tuple[Command[Any, Any], Namespace]:
    """Return a command, and the arguments parsed from the words of its line.

    Raises
    ------
    UsageError
        If the words are not valid arguments; the message is one line.
    """
    command, parser = parser_of(name, prefix)
    if "-h" in words or "--help" in words:
        raise UsageError(" ".join(parser.format_usage().split()).removeprefix("usage: ") + f"; {command.summary}")
    try:
        return command, parser.parse_args(words)
    except LineError as error:
        raise UsageError(str(error)) from None


def call_verb(face: Face, name: str, words: Sequence[str], prefix: str = "%stepwell ") -> None:
    """Call a command with the words of a line, and print its results."""
    command, options = read_words(name, words, prefix)
    arguments = vars(options)
    special = _BINDING.get(name)
    if special is not None and not options.json:
        special(face, arguments)
        return
    try:
        results = command.call(arguments)
    except TrustNeededError as error:
        say(str(error.offer))
        say("nothing was trusted: add --yes if you trust the author")
        return
    if name == "trust":
        face.session.publish(DefinitionsChanged(()))
    if options.json:
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
        say_changed_since(face, arguments["key"])


def say_changed_since(face: Face, key: str) -> None:
    """Print the names and files that a step has read and that other cells have changed since then."""
    before, now = face.timeline.changed_since(key)
    if before:
        how = "names reassigned" if face.timeline.names_reassigned(key) else "changed by other cells"
        say(f"  {how}: {later_changes(key, before, now)}")


# -- values that are bound


def _load(face: Face, arguments: Mapping[str, Any]) -> None:
    for key in arguments["key"]:
        item = face.session.current(key, notebook=arguments["notebook"])
        value = face.session.load(key, notebook=arguments["notebook"], version=arguments["version"])
        # The value of a step is bound to a longer name, because the op has the short name.
        name, note = _free_name(face, key.rpartition("/")[2].replace(".", "_").replace(":", "_"))
        if arguments["version"] is None:
            face.timeline.bind(name, key, item, value)
        else:
            face.namespace[name] = value
        say(f"{name} is {key} of {moment(item.created)} ({item.notebook or 'no notebook'}){note}")


def _inputs(face: Face, arguments: Mapping[str, Any]) -> None:
    shown = []
    for name, (keys, value) in step_inputs(face.session, arguments["step"]).items():
        key = keys[0] if len(keys) == 1 and not is_inner(keys[0]) else ""
        chosen, note = _free_name(face, name, key)
        if key:
            face.timeline.bind(chosen, key, face.session.current(key), value)
        else:
            face.namespace[chosen] = value
        shown.append(chosen + note)
    say(f"bound {', '.join(shown)}" if shown else f"{arguments['step']} has no inputs")


_BINDING: dict[str, Callable[[Face, Mapping[str, Any]], None]] = {"load": _load, "inputs": _inputs}
"""Commands that bind values to variables of the notebook."""


def _free_name(face: Face, name: str, key: str | None = None) -> tuple[str, str]:
    """Return a free name: neither code nor the variable of another asset. Underscores are appended until the name is free.

    Parameters
    ----------
    key
        The asset whose value is to be bound; empty for any other value; None to ignore the names of assets.

    Returns
    -------
    tuple
        The name, and a note that explains why it differs from the requested name; empty if it does not.
    """
    registered = (
        {registered_key.rpartition("/")[2]: registered_key for registered_key in face.session.registry.assets}
        if key is not None
        else {}
    )
    chosen, why = name, ""
    while True:
        code = face.code_kind(chosen)
        other = registered.get(chosen, key)
        if not code and other == key:
            return chosen, f" ({why})" if why else ""
        why = why or f"{name} is {code or f'the asset {other}'}"
        chosen += "_"


# -- SELECTs


def select_rows(face: Face, line: Sequence[str], cell: str | None) -> Any:
    """Return the rows of a SELECT as a frame of the type that ``%config Stepwell.frame`` sets.

    Parameters
    ----------
    line
        The text after ``sql`` as one string; empty if there is none.
    cell
        The body of a cell; None for a line.
    """
    text = without_semicolons("\n".join([*line, cell or ""]))
    if not text:
        raise UsageError("%stepwell sql SELECT ...: one SELECT over stored assets, or FROM stepwell.runs")
    statement = read_statement(text)
    for name in statement.parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT uses ${name}, but the variable {name!r} does not exist",
                remedy=f"run the cell that assigns {name} first",
            )
    parameters = {name: face.namespace[name] for name in statement.parameters}
    return query(face.session, text, parameters=parameters, frame=face.settings.frame)


_verbs = "\n".join(f"{command.usage}\n    {command.summary}" for command in all_commands())
Stepwell.stepwell.__doc__ = f"{Stepwell.stepwell.__doc__}\n\n{_verbs}"
for _magic in (Stepwell.materialize, Stepwell.rerun, Stepwell.why, Stepwell.lineage):
    _magic.__doc__ = f"{_magic.__doc__}\n\n{parser_of(_magic.__name__, '%')[1].format_help()}"
