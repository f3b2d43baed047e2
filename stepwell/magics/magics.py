"""The magics with their flags and help, the settings of ``%config Stepwell``, and ``%stepwell VERB``.

A magic only parses its line and calls another module. Each cell magic is also a line magic, because IPython rejects a cell magic whose cell is
empty. As a line magic, ``%asset clean`` prints the state of the asset.

The verbs are the commands of `stepwell.commands`. This module adds what only notebooks need: it binds the values of ``load`` and ``inputs`` to
variables, displays results that have a picture, and refreshes the lineage widgets after ``trust`` has changed the states of assets.
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
"""A function that returns the definition that a cell makes, and True if the value must be displayed after the run, because the body of the cell
does not display it."""
_OF_HISTORY = re.compile(r"\s*($|-[lg]\b|[\d~])")
"""Matches the arguments of IPython's magic ``%rerun``, which runs lines of the history again."""


@magics_class
class Stepwell(Magics):
    """The magics of Stepwell, and their settings, which ``%config Stepwell`` lists and changes."""

    upstream_budget = Float(
        60.0,
        help="Limit in seconds: in interactive use, a cell does not start upstream steps that took longer than this the last time.",
    ).tag(config=True)
    lines = Bool(True, help="Print a line or two about each run.").tag(config=True)
    seed_steps = Bool(
        True,
        help="Before each body, seed random and numpy.random from the key of the step; after the run, restore their states.",
    ).tag(config=True)
    show_stale = Bool(True, help="After each plain cell, print a line that names the assets that the cell has made stale.").tag(
        config=True
    )
    frame = Enum(
        ["auto", "pandas", "pyarrow", "polars"],
        default_value="auto",
        help="The type of the values of %%sql_asset cells and of the rows of %stepwell sql; auto is pandas if it is installed, else pyarrow.",
    ).tag(config=True)

    face: Face
    """The state that the magics of this kernel share. The extension sets this attribute when the extension is loaded."""
    ipython_rerun: Callable[[str], Any] | None = None
    """IPython's magic ``%rerun``, which Stepwell's ``%rerun`` replaces and may call; None if IPython has no such magic."""

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
        """Turn a cell into an asset. Its value is computed once, stored, and reused as long as nothing that affects it changes.

        The value of the asset is the value of the variable with the name of the asset, or of the variable after ->, as in
        %%asset clean -> df. If the cell does not assign the variable with the name of the asset, the value is that of the last
        expression or, if this is None, the figure that the cell opened.
        """
        line, variable = split_arrow(line)
        self._define("asset", line, cell, asset_cells.asset_of, variable=variable)

    @magic_arguments()
    @argument("names", nargs="+", help="The assets' names; the body assigns one variable for each.")
    @asset_flags(inputs=True)
    @line_cell_magic
    def multi_asset(self, line: str, cell: str | None = None) -> None:
        """Turn a cell into several assets. The value of each asset is that of the variable with the name of the asset."""
        self._define("multi_asset", line, cell, asset_cells.multi_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/daily.")
    @asset_flags(inputs=True, cell=False)
    @line_cell_magic
    def sql_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset from one SELECT over assets. In the SELECT, $name stands for the value of the notebook's variable name."""
        self._define("sql_asset", line, cell, asset_cells.sql_asset_of)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/report.")
    @asset_flags(inputs=False, cell=False)
    @line_cell_magic
    def graph_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset from a cell that calls ops on assets. Its value is the result of a call, such as transform(fetch(clean), top=5).

        The cell ends with this call, or assigns its result to the variable with the name of the asset.

        Each op is a separate step, which can be rerun on its own.
        """
        self._define("graph_asset", line, cell, graph_cells.graph_asset_of)

    def _define(self, magic: str, line: str, cell: str | None, make: Maker, **options: Any) -> None:
        """Define the assets of a cell with `make`, and run them. If `cell` is None, print the states of the assets that `line` names.

        With ``--plain``, only run the body of the cell. `options` are added to the arguments that are parsed from `line`.
        """
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
        """Turn a cell into an op, as in %%op transform(data, *, top=10) -> out.

        Names in the parentheses are inputs; names after * are config parameters, which a call in a graph sets to constants by
        keyword. The outputs of the op are the variables after the arrow ->. Without an arrow, the output is the variable with the
        name of the op or, if the cell does not assign this variable, the value of the last expression.
        """
        magic = "op"

        def make(face: Face, line: str, cell: str) -> Any:
            signature, arguments = read_signature(getattr(self, magic), line)
            return asset_cells.op_of(face, arguments, signature, line, cell)

        self._bind_composable(magic, line, cell, make)

    @line_cell_magic
    def graph(self, line: str, cell: str | None = None) -> None:
        """Make a graph from a cell that calls ops, as in %%graph tidy(data). The cells of other graphs and jobs can call the graph.

        A call can pass an asset by its name: the op gets the stored value, and the asset is never materialized. The value of the
        graph is that of the variable with its name or, if the cell does not assign this variable, that of the last expression.
        """
        self._bind_composable("graph", line, cell, graph_cells.graph_of_cell)

    @line_cell_magic
    def job(self, line: str, cell: str | None = None) -> None:
        """Make a job from a cell that calls ops and graphs, as in %%job mail_worst. Run the job with mail_worst.execute().

        A call can pass an asset by its name: the op gets the stored value, and the asset is never materialized. Every op of a job
        is executed in every run of the job, except ops with --cache.
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
            missing = "" if words else f"%%{magic} needs a name, such as %%{magic} {_EXAMPLES[magic]}; "
            raise UsageError(f"{missing}run %%{magic}? to read the help")
        if cell is None:
            raise UsageError(f"%{magic} is not a line magic: write %%{magic} as the first line of a cell, and the code below it")
        with user_errors(self.face):
            definition = make(self.face, line, cell)
        self.face.namespace[definition.name] = definition
        run = f"; run it with {definition.name}.execute()" if magic == "job" else ""
        self.face.say(f"{definition!r}{run}")

    # -- runs

    @line_magic
    def materialize(self, line: str) -> None:
        """Bring assets and their upstream assets up to date: run only stale steps. Bind the assets to their variables; display no values."""
        _, options = read_words("materialize", shlex.split(line), "%")
        face = self.face
        if face.defines_only:
            return
        for key in options.targets:
            if key in face.session.registry.jobs:
                raise InvalidInvocationError(
                    f"{key!r} is a job, and %materialize takes assets", remedy=f"run the job with {key}.execute()"
                )
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
        """Run single steps again on the stored outputs of the other steps, even if these outputs are stale.

        If the argument is a number, a range, -l or -g, or is missing, run IPython's %rerun, which runs lines of the history again.
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
        """Explain the state of an asset or step, and name the smallest change that caused it.

        With --accept, the stored value stays in use after an edit: accept an edit only if it does not change the result.
        """
        call_verb(self.face, "why", shlex.split(line), "%")

    @line_magic
    def lineage(self, line: str) -> Any:
        """Show a picture of assets, their steps and their states. With keys, show only these assets and everything upstream of them."""
        from stepwell.widgets import show

        show(self.face.session, shlex.split(line) or None)

    @no_var_expand
    @line_cell_magic
    def stepwell(self, line: str, cell: str | None = None) -> Any:
        """Run a command of Stepwell: %stepwell VERB ARGUMENTS. Run %stepwell VERB --help to see the arguments of a command.

        With %%stepwell sql as the first line of a cell, the rest of the cell is the SELECT.
        """
        if line.split(maxsplit=1)[:1] == ["sql"]:
            return select_rows(self.face, line.split(maxsplit=1)[1:], cell)
        if cell is not None:
            raise UsageError(
                "only the command sql uses the rest of the cell (%%stepwell sql): write other commands on one line, as %stepwell VERB"
            )
        # `$name` and `{name}` in a SELECT are part of the SQL; in other commands IPython replaces them by values of variables.
        words = shlex.split(self.face.shell.var_expand(line))
        if not words or words[0] in ("-h", "--help"):
            raise UsageError(f"write one of these commands: %stepwell {' | '.join(VERBS)}; run %stepwell? to read the help")
        if words[0] in ("lineage", "materialize", "rerun"):
            return getattr(self, words[0])(shlex.join(words[1:]))
        call_verb(self.face, words[0], words[1:])
        return None


# -- verbs


def parser_of(name: str, prefix: str = "%stepwell ") -> tuple[Command[Any, Any], LineParser]:
    """Return the command `name` and the parser of its arguments.

    Parameters
    ----------
    prefix
        The text before the name of the command in the usage line: ``%stepwell `` or ``%``.

    Raises
    ------
    UsageError
        If there is no command `name`.
    """
    command = find_command(name)
    if command is None:
        raise UsageError(f"%stepwell has no command {name!r}; run %stepwell? to list the commands")
    parser = LineParser(f"{prefix}{name}", add_help=False)
    command.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=SUPPRESS)
    return command, parser


def read_words(name: str, words: Sequence[str], prefix: str = "%stepwell ") -> tuple[Command[Any, Any], Namespace]:
    """Return the command `name`, and the arguments that were parsed from `words`.

    Raises
    ------
    UsageError
        If there is no command `name`, or if `words` are not valid arguments or ask for help. In the last case, the message is the help, as one line.
    """
    command, parser = parser_of(name, prefix)
    if "-h" in words or "--help" in words:
        raise UsageError(" ".join(parser.format_usage().split()).removeprefix("usage: ") + f"; {command.summary}")
    try:
        return command, parser.parse_args(words)
    except LineError as error:
        raise UsageError(str(error)) from None


def call_verb(face: Face, name: str, words: Sequence[str], prefix: str = "%stepwell ") -> None:
    """Call the command `name` with the arguments in `words`, and print or display its results."""
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
        say("no value was accepted: if you trust the author, run the command again with --yes")
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
    """Print the names and files that the step `key` read and that other cells have changed since; print nothing if there are none."""
    before, now = face.timeline.changed_since(key)
    if before:
        how = "names reassigned" if face.timeline.names_reassigned(key) else "changed by other cells"
        say(f"  {how}: {later_changes(key, before, now)}")


# -- values that are bound


def _load(face: Face, arguments: Mapping[str, Any]) -> None:
    for key in arguments["key"]:
        item = face.session.current(key, notebook=arguments["notebook"])
        value = face.session.load(key, notebook=arguments["notebook"], version=arguments["version"])
        # For a step inside a graph, the name of the variable contains the name of the graph, because the name of the step alone refers to the op.
        name, note = _free_name(face, key.rpartition("/")[2].replace(".", "_").replace(":", "_"))
        if arguments["version"] is None:
            face.timeline.bind(name, key, item, value)
        else:
            face.namespace[name] = value
        say(f"{name} is the value of {key}, computed {moment(item.created)} ({item.notebook or 'no notebook'}){note}")


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
"""The commands that bind values to variables of the notebook: maps the name of a command to the function that calls it."""


def _free_name(face: Face, name: str, key: str | None = None) -> tuple[str, str]:
    """Return a variable name to which a value can be bound: `name` with underscores appended until it is free.

    A name is free if it refers neither to code, such as a function or an op, nor to another registered asset.

    Parameters
    ----------
    key
        The key of the asset whose value will be bound; empty if the value is not that of an asset. None means that a name is free even if it refers
        to an asset.

    Returns
    -------
    tuple
        The free name, and a note in parentheses that says why `name` is not free; the note is empty if `name` is free.
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
    """Return the rows of the SELECT after ``%stepwell sql`` or ``%%stepwell sql``, as a frame of the type that ``%config Stepwell.frame`` sets.

    Parameters
    ----------
    line
        The text after ``sql`` on the line of the magic, as the only item of a list. The list is empty if there is no such text.
    cell
        The lines below the magic's line; None for a line magic.

    Raises
    ------
    UsageError
        If there is no SELECT.
    CellNameError
        If a parameter ``$name`` of the SELECT is not a variable of the notebook.
    """
    text = without_semicolons("\n".join([*line, cell or ""]))
    if not text:
        raise UsageError(
            "%stepwell sql needs a SELECT over stored assets or over the catalog, such as %stepwell sql FROM stepwell.runs"
        )
    statement = read_statement(text)
    for name in statement.parameters:
        if name not in face.namespace:
            raise CellNameError(
                f"the SELECT uses the parameter ${name}, but the notebook has no variable {name!r}",
                remedy=f"run the cell that assigns {name} first",
            )
    parameters = {name: face.namespace[name] for name in statement.parameters}
    return query(face.session, text, parameters=parameters, frame=face.settings.frame)


_EXAMPLES = {"op": "transform(data) -> out", "graph": "tidy(data)", "job": "mail_worst"}
"""Examples of the text after the magics that use `Stepwell._bind_composable`."""
_verbs = "\n".join(f"{command.usage}\n    {command.summary}" for command in all_commands())
Stepwell.stepwell.__doc__ = f"{Stepwell.stepwell.__doc__}\n\n{_verbs}"
for _magic in (Stepwell.materialize, Stepwell.rerun, Stepwell.why, Stepwell.lineage):
    _magic.__doc__ = f"{_magic.__doc__}\n\n{parser_of(_magic.__name__, '%')[1].format_help()}"
