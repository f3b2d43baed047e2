"""The decorator that makes an annotated function a command, which can be called from Python, with ``%stepwell`` and on the command line.

The decorator derives from the function's signature which arguments a user can type. A positional parameter becomes a positional argument.
The argument is optional if the parameter has a default, and takes several values if the parameter is a sequence or ``*args``. A keyword-only
parameter becomes a flag: ``dry_run`` becomes ``--dry-run``. The parameters in `PYTHON_ONLY` can be passed only from Python. The help of an
argument is the text of its parameter in the docstring. `Option` adds facts that a signature cannot express, for example a short flag.
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
"""Exit codes of the command line; ``stepwell --help`` explains each."""
P = ParamSpec("P")
R = TypeVar("R")

PYTHON_ONLY = frozenset(("store", "definitions", "raise_on_error", "verify", "frame", "parameters"))
"""Names of parameters that a command takes only from Python, not as typed arguments. The command line passes the value of ``--store`` as ``store``."""
Needs = Literal["store", "directory", "maybe", "itself", "nothing"]
Definitions = Literal["none", "optional", "required", "notebooks"]
Completes = Literal["", "assets", "steps"]


@dataclass(frozen=True, slots=True)
class Option:
    """What the signature of a function cannot express about one argument of the command.

    Parameters
    ----------
    letter
        A short flag, such as ``-n``, in addition to the long flag; empty if there is no short flag.
    parse
        Converts the typed text to the argument's value, and raises `ValueError` if the text is invalid. None keeps the text.
    completes
        The kind of keys that tab completion offers for the argument: ``assets`` or ``steps``; empty for no completion.
    metavar
        The placeholder of the value in the help, such as ``DIR``; if empty, the parameter's name in capitals.
    is_hidden
        True if the argument can be passed only from Python.
    repeated
        True if a user can type several values for this positional argument; the function is then called once for each value.
    """

    letter: str = ""
    parse: Callable[[str], Any] | None = None
    completes: Completes = ""
    metavar: str = ""
    is_hidden: bool = False
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a command as a user types it, after ``%stepwell VERB`` or ``stepwell VERB``."""

    name: str
    """The name of the function's parameter."""
    help: str
    is_flag: bool
    """True for a flag (``--age 30d``), False for a positional argument."""
    is_switch: bool
    """True for a flag without a value (``--force``)."""
    takes_several: bool
    """True if the parameter takes several values, and the user types each value separately: positional values one after another, values of a flag
    with the flag before each of them. False if the parameter takes one value, and also if `Option.parse` makes a sequence from one text.
    """
    required: bool
    default: Any
    option: Option

    @property
    def usage(self) -> str:
        """The argument in the notation of usage messages: ``KEY``, ``[A]``, ``[--on COLUMN,...]``."""
        metavar = self.option.metavar or self.name.upper()
        if self.is_flag:
            return f"[{self.flags[0]}]" if self.is_switch else f"[{self.flags[0]} {metavar}]"
        several = "..." if self.takes_several or self.option.repeated else ""
        return metavar + several if self.required else f"[{metavar}{several}]"

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that a user can type for the argument, such as ``("-n", "--dry-run")``; empty for a positional argument."""
        if not self.is_flag:
            return ()
        long = ("--no-" if self.is_switch and self.default is True else "--") + self.name.rstrip("_").replace("_", "-")
        return (self.option.letter, long) if self.option.letter else (long,)

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add this argument to a parser."""
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
    """A command: a verb with its function, its arguments, and the functions that turn its result into output.

    Attributes
    ----------
    text
        Returns the text that is printed for a result; ``str`` by default.
    data
        Returns the JSON values that ``--json`` prints for a result; by default the result's method ``as_dict``.
    exit_code
        Returns the exit code of the command line for a result; by default 0.
    needs
        What the command line passes to the function as its argument ``store``. ``store``: an open store; it is an error if the store does not
        exist. ``directory``: the store directory, which is not opened, because the store may be damaged. ``maybe``: the store directory, in which
        the function may create a store. ``itself``: the value of ``--store``, or None without this flag; the function finds the store itself.
        ``nothing``: no argument; the function uses the session's store.
    definitions
        Whether the function uses the definitions of a notebook. ``none``: it does not. ``optional``: the user can name the notebook with
        ``--notebook NB``. ``required``: the user must name it. ``notebooks``: the user names one or more notebooks as positional arguments.
    displayed
        True if a notebook displays the result with IPython's ``display``; False if it prints the result's text.
    epilog
        The text that the command line prints below the help of this command.
    printer
        An object that prints the results on the command line, in place of `text` and `data`; None for most commands. The object's methods are
        `add_arguments` (adds arguments to the parser), `function_arguments` (returns further arguments of the function) and `show` (prints a result).
        An optional method `prepared` changes the typed words before they are parsed.
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
        """The name and the arguments in the notation of usage messages: ``versions KEY [-a]``."""
        return " ".join(
            [self.name, *(argument.usage for argument in sorted(self.arguments, key=lambda argument: argument.is_flag))]
        )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this command to a parser."""
        for argument in self.arguments:
            argument.add_to(parser)

    def call(self, line_values: Mapping[str, Any], **extra_arguments: Any) -> list[R]:
        """Call the function with the arguments that a user typed, and return the results.

        If `Option.repeated` is True for an argument, the function is called once for each value of this argument. Otherwise it is called once.

        Parameters
        ----------
        line_values
            The parsed values of the command's arguments, by name. Other names are ignored.
        extra_arguments
            Further arguments for each call, such as ``store``.

        Returns
        -------
        list
            The result of each call.
        """
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
        named = {name: value for name, value in values.items() if parameters[name].kind is not inspect.Parameter.VAR_POSITIONAL}
        function: Any = self.function
        result: R = function(*first, **named, **extra_arguments)
        return result

    def json(self, results: Sequence[R], about: Mapping[str, Any] = types.MappingProxyType({})) -> str:
        """Return the results of `call` as JSON text: one object for one result, else a list of objects.

        Parameters
        ----------
        results
            The results of `call`.
        about
            Members to add to each object, such as ``store``.
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
    """Return a decorator that registers a function as a command and returns the function unchanged.

    The name of the function is the verb. `options` maps names of the function's parameters to `Option` objects. Every other argument of
    `command` becomes the attribute of `Command` with the same name.
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
    """Return the command with the verb `name`; None if there is no such verb. The module of the command is imported if necessary."""
    if name not in VERBS:
        return None
    if name not in _commands:
        import_module(HOMES.get(name, f"stepwell.commands.{name}"))
    return _commands[name]


def all_commands() -> list[Command[Any, Any]]:
    """Return every command, in the order of `VERBS`; all their modules are imported."""
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
    """Return, by parameter name, the texts in the ``Parameters`` section of a docstring: each as one line, without backticks or a final full stop."""
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
    """Raised if the arguments that a user typed are invalid. The message has one line."""


class LineParser(argparse.ArgumentParser):
    """A parser of typed arguments that raises `LineError` for invalid arguments; argparse would end the process."""

    def __init__(self, program: str, **options: Any) -> None:
        super().__init__(prog=program, allow_abbrev=False, **options)
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse typed words. In contrast to argparse, also accept optional positional arguments after flags."""
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        """Raise `LineError` with the message, the most similar flag if a flag is unknown, and the usage."""
        usage = " ".join(self.format_usage().split()).removeprefix("usage: ")
        raise LineError(f"{message}{self.suggestion(message)}; {usage}")

    def suggestion(self, message: str) -> str:
        """Return a suggestion to append to a message about an unknown flag, such as ``: did you mean --force?``; empty if no flag is similar."""
        flags = [flag for flag in self._option_string_actions if flag.startswith("--")]
        unknown = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        near = [flag for word in unknown if word not in flags for flag in difflib.get_close_matches(word, flags, 1, 0.5)]
        return f": did you mean {' '.join(near)}?" if near else ""


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag ``--json`` to a parser."""
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else on standard output")


def read_count(text: str) -> int:
    """Return the whole number that a text represents; raise `ValueError` if the text is not a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def read_names(text: str) -> list[str]:
    """Return the names in a text that are separated by commas. Empty names are omitted."""
    return [name for name in text.split(",") if name]


@dataclass(frozen=True)
class Table:
    """A table of strings. ``str`` returns one line for each row, with aligned columns."""

    rows: Sequence[tuple[str, ...]]
    empty_text: str = field(default="")
    """What ``str`` returns if the table has no rows."""

    def __str__(self) -> str:
        if not self.rows:
            return self.empty_text
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        return "\n".join(
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        )
