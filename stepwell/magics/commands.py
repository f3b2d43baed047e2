"""The magics themselves: their flags, their help, and the settings of ``%config Stepwell``.

Each is thin: it reads its line and hands over to the module that knows. Cell magics are line magics too, since IPython refuses
an empty cell before it asks us: the line form of ``%asset clean`` says what state the asset is in.
"""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from collections.abc import Callable
from typing import Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, line_cell_magic, line_magic, magics_class, no_var_expand
from traitlets import Bool, Enum, Float, observe

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.text import as_json
from stepwell.magics import asset_cells, graph_cells, op_cells, sql_cells, sql_lines, status
from stepwell.magics.cell_source import cell_text, read_cell
from stepwell.magics.face import Face
from stepwell.magics.flags import (
    argument,
    asset_flags,
    magic_arguments,
    op_flags,
    read_line,
    read_signature,
    split_arrow,
)
from stepwell.magics.lines import say, work_line
from stepwell.magics.progress import Progress
from stepwell.magics.running import bind, bind_loadable, displays_off, registry_kept, run_definition, users_errors

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

    def _read(self, name: str, line: str) -> Namespace:
        """Read the line of a magic."""
        return read_line(getattr(self, name), line)

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
        arguments = self._read("asset", line)
        arguments.variable = variable
        if cell is None:
            status.print_state(self.face, [arguments.name])
        elif arguments.plain:
            self._plain("asset", arguments.name, line, cell)
        else:
            run_definition(self.face, asset_cells.asset_of(self.face, arguments, line, cell), arguments)

    @magic_arguments()
    @argument("names", nargs="+", help="The assets' names: one variable of the body each.")
    @asset_flags(inputs=True)
    @line_cell_magic
    def multi_asset(self, line: str, cell: str | None = None) -> None:
        """Make several assets of a cell: one variable per name."""
        arguments = self._read("multi_asset", line)
        if cell is None:
            status.print_state(self.face, arguments.names)
        elif arguments.plain:
            self._plain("multi_asset", " ".join(arguments.names), line, cell)
        else:
            run_definition(self.face, asset_cells.multi_asset_of(self.face, arguments, line, cell), arguments)

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/daily.")
    @asset_flags(inputs=True, cell=False)
    @line_cell_magic
    def sql_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset of one SELECT over assets; $name takes a notebook variable."""
        arguments = self._read("sql_asset", line)
        if cell is None:
            status.print_state(self.face, [arguments.name])
        else:
            run_definition(
                self.face, sql_cells.sql_asset_of(self.face, arguments, line, cell), arguments, show_value=True
            )

    @magic_arguments()
    @argument("name", help="The asset's name, or its key with a prefix: raw/report.")
    @asset_flags(inputs=False, cell=False)
    @line_cell_magic
    def graph_asset(self, line: str, cell: str | None = None) -> None:
        """Make an asset of a cell that calls ops, with assets by name: transform(fetch(clean), top=5)."""
        arguments = self._read("graph_asset", line)
        if cell is None:
            status.print_state(self.face, [arguments.name])
        else:
            with users_errors(self.face):
                definition, shown = graph_cells.graph_asset_of(self.face, arguments, line, cell)
            run_definition(self.face, definition, arguments, show_value=shown)

    def _plain(self, magic: str, name: str, line: str, cell: str) -> None:
        text = cell_text(self.shell, self.face.running, magic, line, cell)
        source = read_cell(self.shell, text, name)
        with users_errors(self.face):
            asset_cells.run_plain(self.face, source)

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
            return op_cells.op_of(face, arguments, signature, line, cell)

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

    @magic_arguments()
    @argument(
        "keys",
        nargs="*",
        help="Assets, or selections such as +report, raw*, group:daily; everything that is registered without any.",
    )
    @argument("-f", "--force", action="store_true", help="Run them even if their stored values could be reused.")
    @argument("--no-upstream", action="store_true", help="Take upstream assets as they are stored.")
    @line_magic
    def materialize(self, line: str) -> None:
        """Bring assets and everything that they need up to date, bind them, and display nothing."""
        arguments = self._read("materialize", line)
        face = self.face
        for key in arguments.keys:
            if key in face.session.registry.jobs:
                raise InvalidInvocationError(f"{key!r} is a job, not an asset", remedy=f"run it with {key}.execute()")
        waiting = [state for state in face.session.states(arguments.keys or None).values() if state.must_run]
        line = work_line(waiting) if len(waiting) > 1 and not arguments.no_upstream else ""
        with users_errors(face), displays_off(face, off=True), Progress(face, line):
            result = face.session.materialize(
                arguments.keys or None, force=arguments.force, upstream=not arguments.no_upstream
            )
        targets = result.run.targets
        result = bind_loadable(face, targets, result, lambda: face.session.materialize(targets, force=True), cell=False)
        status.say_result(face, result)

    @magic_arguments()
    @argument("steps", nargs="+", help="Steps: report.transform; or assets, for all of their steps.")
    @line_magic
    def rerun(self, line: str) -> None:
        """Run single steps on what is stored for the others, even where that is stale.

        With a number, a range, -l or -g, or without anything, it is IPython's own %rerun of the history.
        """
        if self.own_rerun is not None and _OF_HISTORY.match(line):
            self.own_rerun(line)
            return
        arguments = self._read("rerun", line)
        face = self.face
        with users_errors(face):
            result = face.session.rerun(arguments.steps, show=arguments.steps)
        bind(face, [key for key in result.run.targets if key in face.session.registry.assets], result, cell=False)
        status.say_steps(face, result)

    @magic_arguments()
    @argument("key", help="An asset or a step.")
    @argument(
        "--accept",
        action="store_true",
        help="Mark the edit as not mattering: what is stored is valid for what is there now.",
    )
    @argument("--revoke", action="store_true", help="Take back what was accepted last.")
    @argument("--json", action="store_true", help="Print the same as JSON.")
    @line_magic
    def why(self, line: str) -> None:
        """Say what state an asset or step is in, and the smallest cause of it."""
        arguments = self._read("why", line)
        if arguments.accept and arguments.revoke:
            raise UsageError("%why KEY --accept or --revoke, not both")
        session = self.face.session
        ask = session.accept if arguments.accept else session.revoke if arguments.revoke else session.why
        found = ask(arguments.key)
        say(as_json(found.as_dict()) if arguments.json else str(found))
        if not arguments.json:
            status.say_changed_since(self.face, arguments.key)

    @line_magic
    def lineage(self, line: str) -> Any:
        """Show the graph of assets, their steps and their states; keys limit it."""
        from stepwell.widgets.display import show

        show(self.face.session, shlex.split(line) or None)

    @no_var_expand
    @line_cell_magic
    def stepwell(self, line: str, cell: str | None = None) -> Any:
        """Look into the session: %stepwell COMMAND.

        status          what is registered, each with its state; --sizes: what each key takes in the store
        runs [N]        the newest runs
        logs [RUN]      what the steps of a run logged; of the last run without one
        load KEY...     bind the stored values of keys
        inputs STEP     bind a step's stored inputs: to look into a step that failed
        code KEY        show the code that a key was defined with
        versions KEY    what it was, newest first; -a for all
        diff KEY [A [B]] [--on COLUMN,...]
                        how two versions differ, by default the newest two; A, B: -2, an identifier, a time
        rename OLD NEW  carry what is stored over to another key
        forget KEY      remove every version of it (--yes); not to be undone
        keep [KEY] [--versions N] [--age 30d] [--bytes 10GB] [--forever]
                        what is kept of a key, or of the whole store; shows the rules
        gc [-n]         free what the rules drop and what nothing refers to; -n only tells; --compact
        store [PATH]    where the store is and how large; switch to another one
        doctor [FLAGS]  check the store and its surroundings; --quick, --clean, --rebuild
        pack SELECTION OUT.zip
                        write stored values into one file for somebody else
        trust OUT.zip|KEY...
                        what another key signed: shown, and taken over with --yes; --all: all of it
        sql SELECT      rows of one SELECT over stored assets, or over the catalog (FROM stepwell.runs); $name takes a notebook
                        variable; also %%stepwell sql with the SELECT below
        """
        if line.split(maxsplit=1)[:1] == ["sql"]:
            return sql_lines.rows(self.face, line.split(maxsplit=1)[1:], cell)
        if cell is not None:
            raise UsageError("%%stepwell sql is the only command with a body: the SELECT")
        # Dollars and braces belong to the SELECT; elsewhere they are IPython's.
        words = shlex.split(self.face.shell.var_expand(line))
        if not words or words[0] in ("-h", "--help"):
            raise UsageError(f"%stepwell {' | '.join([*status.COMMANDS, 'sql'])}; %stepwell? explains them")
        command = status.COMMANDS.get(words[0])
        if command is None:
            raise UsageError(f"%stepwell has no command {words[0]!r}; it has {', '.join([*status.COMMANDS, 'sql'])}")
        return command(self.face, words[1:])
