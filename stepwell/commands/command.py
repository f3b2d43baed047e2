"""The mechanism that turns a typed function into a command of Python, of ``%stepwell`` and of the command line.

The arguments are derived from the function's signature. A positional parameter is a positional argument, which is optional if it has a default
and repeated if it is a sequence or ``*args``. A keyword-only parameter is a flag, such as ``--dry-run`` for ``dry_run``. Parameters that exist
only in Python (`PYTHON_ONLY`) are not arguments of a line. The help is the ``Parameters`` section of the docstring. `Option` adds what a
signature cannot express: a short flag, the parser of the value, the completion.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Generic, Literal, NoReturn, ParamSpec, TypeVar

from stepwell.commands import HOMES, VERBS
from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.text import as_json

OK, CELL_FAILED, USAGE, NO_NOTEBOOK, NO_KERNEL, NO_STORE, NOT_TRUSTED = range(7)
"""Exit codes of the command line."""
P = ParamSpec("P")
R = TypeVar("R")

PYTHON_ONLY = frozenset(("store", "definitions", "raise_on_error", "verify", "frame", "parameters"))
"""Parameters that are not arguments of a line; ``store`` is ``--store`` on the command line."""
Needs = Literal["store", "directory", "maybe", "itself", "nothing"]
Definitions = Literal["none", "optional", "required", "notebooks"]
Completes = Literal["", "assets", "steps"]


@dataclass(frozen=True, slots=True)
class Option:
    """Facts about an argument that a signature cannot express.

    Parameters
    ----------
    letter
        A short flag: ``-n``.
    parse
        Parses a value from a line; raises `ValueError` if the value is invalid.
    completes
        The kind of names that completion offers for the argument.
    metavar
        The name of the value in the help; by default the parameter's name in capitals.
    is_hidden
        True for a parameter that only Python can pass.
    repeated
        True to accept several positional values in a line and to call the function once for each value.
    """

    letter: str = ""
    parse: Callable[[str], Any] | None = None
    completes: Completes = ""
    metavar: str = ""
    is_hidden: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command in a line."""

    name: str
    help: str
    is_flag: bool
    is_switch: bool
    takes_several: bool
    required: bool
    default: Any
    option: Option

    @property
    def usage(self) -> str:
        """The argument as the usage shows it: ``KEY``, ``[A]``, ``[--on COLUMN,...]``."""
        metavar = self.option.metavar or self.name.upper()
        if self.is_flag:
            return f"[{self.flags[0]}]" if self.is_switch else f"[{self.flags[0]} {metavar}]"
        several = "..." if self.takes_several or self.option.repeated else ""
        return metavar + several if self.required else f"[{metavar}{several}]"

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags of the argument; empty for a positional argument."""
        if not self.is_flag:
            return ()
        long = ("--no-" if self.is_switch and self.default is True else "--") + self.name.rstrip("_").replace("_", "-")
        return (self.option.letter, long) if self.option.letter else (long,)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the argument to a parser."""
        settings: dict[str, Any] = {"help": self.help.replace("%", "%%") or None}
        metavar = self.option.metavar or self.name.upper()
        if self.is_switch:
            action = "store_false" if self.default is True else "store_true"
            parser.add_argument(*self.flags, dest=self.name, action=action, **settings)
            return
        settings["metavar"] = metavar
        if self.option.parse is not None:
            settings["type"] = _reader(self.option.parse, metavar)
        if self.is_flag:
            if self.takes_several:
                settings |= {"action": "append"}
            parser.add_argument(*self.flags, dest=self.name, default=self.default, **settings)
            return
        several = self.takes_several or self.option.repeated
        nargs = ("+" if self.required else "*") if several else (None if self.required else "?")
        if not self.required:
            settings["default"] = self.default
        parser.add_argument(self.name, nargs=nargs, **settings)


@dataclass(frozen=True)
class Command(Generic[P, R]):
    """A verb: its function, its arguments, and the functions that render its result.

    Attributes
    ----------
    text
        Renders a result as text; ``str`` by default.
    data
        Renders a result as JSON data; by default the result's method ``as_dict``.
    exit_code
        The exit code of the command line for a result.
    needs
        The store that the function needs: ``store`` for an existing, open store; ``directory`` for a directory that need not contain a usable
        store; ``maybe`` if the function may create the store; ``itself`` if the function locates the store.
    definitions
        States if the function can or must have the definitions of a notebook. The command line takes the notebook as ``--notebook NB``, or
        notebooks as positional arguments (``notebooks``).
    displayed
        True if a notebook displays the result instead of printing its text.
    epilog
        Text below the help of the command line.
    printer
        Prints a result incrementally on the command line; an object with the methods `add_arguments`, `function_arguments` and `show`.
    """

    name: str
    function: Callable[P, R]
    summary: str
    description: str
    arguments: tuple[Argument, ...]
    needs: Needs
    text: Callable[[Any], str]
    data: Callable[[Any], Any]
    exit_code: Callable[[Any], int]
    definitions: Definitions = "none"
    displayed: bool = False
    epilog: str = ""
    printer: Any = None

    @property
    def usage(self) -> str:
        """The name and the arguments as the usage shows them: ``versions KEY [-a]``."""
        return " ".join(
            [self.name, *(argument.usage for argument in sorted(self.arguments, key=lambda argument: argument.is_flag))]
        )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a parser."""
        for argument in self.arguments:
            argument.add_to(parser)

    def call(self, line_values: Mapping[str, Any], **extra_arguments: Any) -> list[R]:
        """Call the function with the arguments of a line, once per value of a repeated argument."""
        values = {argument.name: line_values[argument.name] for argument in self.arguments}
        repeated = next((argument.name for argument in self.arguments if argument.option.repeated), None)
        if repeated is None:
            return [self._call_function(values, extra_arguments)]
        return [self._call_function({**values, repeated: value}, extra_arguments) for value in values[repeated]]

    def _call_function(self, values: Mapping[str, Any], extra_arguments: Mapping[str, Any]) -> R:
        parameters = inspect.signature(self.function).parameters
        first: list[Any] = []
        for name, parameter in parameters.items():
            if parameter.kind is parameter.VAR_POSITIONAL and name in values:
                first += values[name]
        named = {
            name: value
            for name, value in values.items()
            if parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL
        }
        function: Any = self.function
        result: R = function(*first, **named, **extra_arguments)
        return result

    def json(self, results: Sequence[R], about: Mapping[str, Any] = types.MappingProxyType({})) -> str:
        """Return the JSON text of results: one object, or a list if the command was called several times.

        Parameters
        ----------
        results
            The results of `call`.
        about
            Members that are added to every object, such as the store.
        """
        items = [self.data(result) for result in results]
        objects = [{**about, **item} if isinstance(item, dict) else item for item in items]
        return as_json(objects[0] if len(objects) == 1 else objects, indent=2)


_commands: dict[str, Command[Any, Any]] = {}


def command(
    *,
    needs: Needs = "store",
    options: Mapping[str, Option] = types.MappingProxyType({}),
    text: Callable[[Any], str] = str,
    data: Callable[[Any], Any] | None = None,
    exit_code: Callable[[Any], int] = lambda _: OK,
    definitions: Definitions = "none",
    displayed: bool = False,
    epilog: str = "",
    printer: Any = None,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Register a function as a command and return it unchanged.

    The parameters are attributes of `Command`; `options` maps the names of parameters to an `Option`.
    """

    def register(function: Callable[P, R]) -> Callable[P, R]:
        doc = inspect.getdoc(function) or ""
        summary, _, rest = doc.partition("\n\n")
        more = (
            ""
            if rest.startswith(("Parameters\n", "Raises\n", "Returns\n"))
            else rest.split("\n\nParameters\n")[0].split("\n\nRaises\n")[0]
        )
        name = function.__name__
        _commands[name] = Command(
            name, function, " ".join(summary.split()), " ".join(more.split()), tuple(_arguments(function, doc, options)), needs, text,
            data or (lambda result: result.as_dict()), exit_code, definitions, displayed, epilog, printer,
        )  # fmt: skip
        return function

    return register


def find_command(name: str) -> Command[Any, Any] | None:
    """Return the command with a name; None if no command has the name."""
    if name not in VERBS:
        return None
    if name not in _commands:
        import_module(HOMES.get(name, f"stepwell.commands.{name}"))
    return _commands[name]


def all_commands() -> list[Command[Any, Any]]:
    """Return every command, in the order of the help."""
    return [command for name in VERBS if (command := find_command(name)) is not None]


def _arguments(function: Callable[..., Any], doc: str, options: Mapping[str, Option]) -> Iterable[Argument]:
    help_texts = parameter_help(doc)
    for name, parameter in inspect.signature(function).parameters.items():
        option = options.get(name, Option())
        if name in PYTHON_ONLY or option.is_hidden:
            continue
        hint = str(parameter.annotation)
        star = parameter.kind is parameter.VAR_POSITIONAL
        many = star or any(word in hint for word in ("Sequence[", "Iterable[", "Targets"))
        default = () if star else None if parameter.default is parameter.empty else parameter.default
        yield Argument(
            name, help_texts.get(name, ""), parameter.kind is parameter.KEYWORD_ONLY, hint == "bool", many and not option.parse,
            parameter.default is parameter.empty and not star, default, option,
        )  # fmt: skip


def parameter_help(doc: str) -> dict[str, str]:
    """Return the help of each parameter in the ``Parameters`` section of a docstring, on one line without the final full stop."""
    help_texts: dict[str, str] = {}
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    for names, lines in re.findall(
        r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n(?=[ \t]))+)", section[1] if section else "", re.MULTILINE
    ):
        text = " ".join(lines.split()).replace("``", "").replace("`", "").removesuffix(".")
        for name in names.split(","):
            help_texts[name.strip().lstrip("*")] = text
    return help_texts


def _reader(read: Callable[[str], Any], metavar: str) -> Callable[[str], Any]:
    def reader(text: str) -> Any:
        try:
            return read(text)
        except InvalidInvocationError as error:
            raise argparse.ArgumentTypeError(error.what) from None
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error) or f"{text!r} is not a valid {metavar}") from None

    return reader


class LineError(Exception):
    """An error in a line; the message has one line."""


class LineParser(argparse.ArgumentParser):
    """Parser of the words of a line; raises `LineError` instead of ending the process."""

    def __init__(self, program: str, **options: Any) -> None:
        super().__init__(prog=program, allow_abbrev=False, **options)
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words. Unlike argparse, accept optional positional arguments after flags."""
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        """Raise a `LineError` with the message, the nearest flag and the usage."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise LineError(f"{message}{self.suggestion(message)}; {usage}")

    def suggestion(self, message: str) -> str:
        """Return a suggestion for a message about unknown flags, such as ``: did you mean --force?``; empty if no flag is similar."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        near = [
            flag for word in unknown if word not in flags for flag in difflib.get_close_matches(word, flags, 1, 0.5)
        ]
        return f": did you mean {' '.join(near)}?" if near else ""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")


def read_count(text: str) -> int:
    """Parse a number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of at least 1")
    return int(text)


def read_names(text: str) -> list[str]:
    """Parse names that are separated by commas."""
    return [name for name in text.split(",") if name]


@dataclass(frozen=True)
class Table:
    """Rows of text, rendered in columns."""

    rows: Sequence[tuple[str, ...]]
    empty_text: str = field(default="")

    def __str__(self) -> str:
        if not self.rows:
            return self.empty_text
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        )
