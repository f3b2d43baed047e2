"""The mechanism behind every verb: a typed function becomes a command of Python, of ``%stepwell`` and of the command line.

The function's signature gives the arguments. A positional parameter is a positional argument, optional if it has a default, repeated if it is a
sequence or ``*args``. A keyword-only parameter is a flag, ``--dry-run`` for ``dry_run``. Parameters that only Python can give (`PYTHON_ONLY`) are left
out of lines. The ``Parameters`` section of the docstring gives the help. `Option` adds the little that a signature cannot tell: a short flag,
how the text of a line is read, what completes it.
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
"""Parameters that are no argument of a line; ``store`` is ``--store`` on the command line."""
Needs = Literal["store", "directory", "maybe", "itself", "nothing"]
Definitions = Literal["none", "optional", "required", "notebooks"]
Completes = Literal["", "assets", "steps"]


@dataclass(frozen=True, slots=True)
class Option:
    """What a signature does not tell of an argument.

    Parameters
    ----------
    short
        A short flag: ``-n``.
    read
        From the text of a line to the value; raises `ValueError` for bad text.
    completes
        What completes it.
    metavar
        How help names its value; by default its name in capitals.
    hidden
        Whether lines do not have it.
    repeated
        Whether a line may give several positional values, and the function is called once with each.
    """

    short: str = ""
    read: Callable[[str], Any] | None = None
    completes: Completes = ""
    metavar: str = ""
    hidden: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command, as lines have it."""

    name: str
    help: str
    is_flag: bool
    is_switch: bool
    many: bool
    required: bool
    default: Any
    option: Option

    @property
    def usage(self) -> str:
        """How a line writes it: ``KEY``, ``[A]``, ``[--on COLUMN,...]``."""
        metavar = self.option.metavar or self.name.upper()
        if self.is_flag:
            return f"[{self.flags[0]}]" if self.is_switch else f"[{self.flags[0]} {metavar}]"
        several = "..." if self.many or self.option.repeated else ""
        return metavar + several if self.required else f"[{metavar}{several}]"

    @property
    def flags(self) -> tuple[str, ...]:
        """Its flags; none for a positional argument."""
        if not self.is_flag:
            return ()
        long = ("--no-" if self.is_switch and self.default is True else "--") + self.name.rstrip("_").replace("_", "-")
        return (self.option.short, long) if self.option.short else (long,)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it to a parser."""
        told: dict[str, Any] = {"help": self.help.replace("%", "%%") or None}
        metavar = self.option.metavar or self.name.upper()
        if self.is_switch:
            action = "store_false" if self.default is True else "store_true"
            parser.add_argument(*self.flags, dest=self.name, action=action, **told)
            return
        told["metavar"] = metavar
        if self.option.read is not None:
            told["type"] = _reader(self.option.read, metavar)
        if self.is_flag:
            if self.many:
                told |= {"action": "append"}
            parser.add_argument(*self.flags, dest=self.name, default=self.default, **told)
            return
        several = self.many or self.option.repeated
        nargs = ("+" if self.required else "*") if several else (None if self.required else "?")
        if not self.required:
            told["default"] = self.default
        parser.add_argument(self.name, nargs=nargs, **told)


@dataclass(frozen=True)
class Command(Generic[P, R]):
    """A verb: its function, its arguments, and how its result is rendered.

    Attributes
    ----------
    text
        Renders a result as text; ``str`` by default.
    data
        Renders a result as JSON data; its ``as_dict`` by default.
    exit_code
        The exit code of the command line for a result.
    needs
        ``store`` if it takes an open store that exists, ``directory`` if it takes a directory that need not be a usable store,
        ``maybe`` if the function may make the store, ``itself`` if it finds its store itself.
    definitions
        Whether the definitions of a notebook can or must be there: the command line takes ``--notebook NB`` for them, or the notebooks themselves.
    displayed
        Whether a notebook displays the result instead of printing its text.
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
    """What the command line adds to print a result as it is made: `add_arguments`, `given`, `show`."""

    @property
    def usage(self) -> str:
        """Its name and arguments, as lines have them: ``versions KEY [-a]``."""
        return " ".join([self.name, *(each.usage for each in sorted(self.arguments, key=lambda each: each.is_flag))])

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments to a parser."""
        for argument in self.arguments:
            argument.add_to(parser)

    def call(self, given: Mapping[str, Any], **more: Any) -> list[R]:
        """Call the function with the arguments of a line; once with each value of a repeated argument."""
        values = {each.name: given[each.name] for each in self.arguments}
        repeated = next((each.name for each in self.arguments if each.option.repeated), None)
        if repeated is None:
            return [self._called(values, more)]
        return [self._called({**values, repeated: value}, more) for value in values[repeated]]

    def _called(self, values: Mapping[str, Any], more: Mapping[str, Any]) -> R:
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
        made: Any = self.function
        found: R = made(*first, **named, **more)
        return found

    def json(self, results: Sequence[R], about: Mapping[str, Any] = types.MappingProxyType({})) -> str:
        """Return the JSON text of results: one object, or a list of them where the command was called several times."""
        found = [self.data(each) for each in results]
        shown = [{**about, **each} if isinstance(each, dict) else each for each in found]
        return as_json(shown[0] if len(shown) == 1 else shown, indent=2)


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
    """Register a function as a command; it stays as it is. Parameters are the attributes of `Command`, and `options` by parameter."""

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
            data or (lambda found: found.as_dict()), exit_code, definitions, displayed, epilog, printer,
        )  # fmt: skip
        return function

    return register


def find_command(name: str) -> Command[Any, Any] | None:
    """Return the command of a name; None if there is none."""
    if name not in VERBS:
        return None
    if name not in _commands:
        import_module(HOMES.get(name, f"stepwell.commands.{name}"))
    return _commands[name]


def all_commands() -> list[Command[Any, Any]]:
    """Return every command, in the order of the help."""
    return [found for name in VERBS if (found := find_command(name)) is not None]


def _arguments(function: Callable[..., Any], doc: str, options: Mapping[str, Option]) -> Iterable[Argument]:
    told = parameter_help(doc)
    for name, parameter in inspect.signature(function).parameters.items():
        option = options.get(name, Option())
        if name in PYTHON_ONLY or option.hidden:
            continue
        hint = str(parameter.annotation)
        star = parameter.kind is parameter.VAR_POSITIONAL
        many = star or any(word in hint for word in ("Sequence[", "Iterable[", "Targets"))
        default = () if star else None if parameter.default is parameter.empty else parameter.default
        yield Argument(
            name, told.get(name, ""), parameter.kind is parameter.KEYWORD_ONLY, hint == "bool", many and not option.read,
            parameter.default is parameter.empty and not star, default, option,
        )  # fmt: skip


def parameter_help(doc: str) -> dict[str, str]:
    """Return what the ``Parameters`` section of a docstring says of each parameter, as one sentence without its full stop."""
    found: dict[str, str] = {}
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", doc, re.DOTALL | re.MULTILINE)
    for names, lines in re.findall(
        r"^(\S[^\n]*)\n((?:[ \t]+[^\n]*\n?|\n(?=[ \t]))+)", section[1] if section else "", re.MULTILINE
    ):
        told = " ".join(lines.split()).replace("``", "").replace("`", "").removesuffix(".")
        for name in names.split(","):
            found[name.strip().lstrip("*")] = told
    return found


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
    """A line that cannot be read; the message is one line."""


class LineParser(argparse.ArgumentParser):
    """Reads the words of a line; raises `LineError` instead of ending the process."""

    def __init__(self, program: str, **options: Any) -> None:
        super().__init__(prog=program, allow_abbrev=False, **options)
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse words; optional positional arguments may also stand behind flags."""
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong line."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise LineError(f"{message}{self.suggestion(message)}; {usage}")

    def suggestion(self, message: str) -> str:
        """Return ``: did you mean --force?`` for a message about unknown flags; empty if no flag is near."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        near = [
            each for word in unknown if word not in flags for each in difflib.get_close_matches(word, flags, 1, 0.5)
        ]
        return f": did you mean {' '.join(near)}?" if near else ""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag of commands that can print JSON."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object on standard output, and nothing else there"
    )


def read_count(text: str) -> int:
    """Read a number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a number of at least 1")
    return int(text)


def read_names(text: str) -> list[str]:
    """Read names with commas between them."""
    return [name for name in text.split(",") if name]


@dataclass(frozen=True)
class Table:
    """Rows of text, rendered in columns."""

    rows: Sequence[tuple[str, ...]]
    empty: str = field(default="")

    def __str__(self) -> str:
        if not self.rows:
            return self.empty
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        )
