"""The first line of a magic: the flags that asset cells and ops share, the parsing of the line, and its completion.

Flags are declared with IPython's decorators, so that the help of a magic (``?``) explains each flag. After ``%%op``, the line contains a signature:
a name, the inputs and config in parentheses, and an arrow with the names of outputs. Flags may stand before or after the signature.
Completion offers flags, asset keys and step keys.
"""

from __future__ import annotations

import difflib
import re
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, TypeVar

from IPython.core import magic_arguments as untyped
from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher
from IPython.core.error import UsageError

from stepwell.commands import VERBS
from stepwell.commands.command import find_command
from stepwell.kernel_runtime.planning.plan import asset_steps, job_steps
from stepwell.magics.face import Face

F = TypeVar("F", bound=Callable[..., Any])


def magic_arguments() -> Callable[[F], F]:
    """Call IPython's untyped function of the same name. The returned decorator makes the parser and the help of a magic from the declared arguments."""
    return untyped.magic_arguments()  # type: ignore[no-untyped-call]


def argument(*flags: str, **options: Any) -> Callable[[F], F]:
    """Call IPython's untyped function of the same name. The returned decorator declares one argument of a magic, such as a flag."""
    return untyped.argument(*flags, **options)  # type: ignore[no-untyped-call]


_REUSE = (
    argument("--no-cache", action="store_true", help="Run the step in every run; never reuse its stored value."),
    argument(
        "--ignore",
        metavar="NAME,...",
        action="append",
        default=[],
        help="Variables, or attributes of objects (session.cookies), whose changes do not make the step stale.",
    ),
    argument(
        "--max-age",
        metavar="AGE",
        help="Reuse the stored value only up to this age, such as 30m, 12h or 1d; then run again.",
    ),
    argument(
        "--volatile",
        action="store_true",
        help="Run the step in every run that needs its value; downstream steps run only if the value changed.",
    ),
)
_READS = argument(
    "--reads",
    metavar="GLOB",
    action="append",
    default=[],
    help="Files, such as data/*.csv, that the body reads in ways that Stepwell cannot record; a change of them makes the step stale.",
)


def asset_flags(*, inputs: bool, cell: bool = True) -> Callable[[F], F]:
    """Return a decorator that adds the flags of asset cells to a magic.

    Parameters
    ----------
    inputs
        True to add ``--dep`` and the flags that control the reuse of the value; False for ``%%graph_asset``, which does not have these flags.
    cell
        True for a magic whose body is Python code that runs as a step: add ``--reads``, ``--keep``, ``--drop``, ``--stored`` and ``--plain``.
    """
    shared = [
        argument("-r", "--register", action="store_true", help="Register the definition of the asset; run nothing."),
        argument("-n", "--dry-run", action="store_true", help="Show which steps would run; run nothing."),
        argument("-f", "--force", action="store_true", help="Run the asset even if its stored value could be reused."),
        argument("-q", "--quiet", action="store_true", help="Do not display the value and the displays of the cell."),
        argument("-g", "--group", metavar="GROUP", help="The group of the asset, by which selections can name it."),
        argument(
            "-k",
            "--key-prefix",
            metavar="PREFIX",
            help="A prefix of the key: with -k raw, the asset flights has the key raw/flights.",
        ),
        argument(
            "--in",
            dest="inputs",
            metavar="NAME=KEY",
            action="append",
            default=[],
            help="The asset to which a name in the body refers: with --in flights=raw/flights, flights is the value of raw/flights.",
        ),
    ]
    if inputs:
        shared += [
            argument(
                "-d",
                "--dep",
                dest="deps",
                metavar="KEY",
                action="append",
                default=[],
                help="An asset that must be up to date before the cell runs, but whose value the cell does not get.",
            ),
            *_REUSE,
        ]
    if cell:
        shared += [
            _READS,
            argument(
                "--keep",
                metavar="NAME,...",
                action="append",
                default=[],
                help="Variables of the cell, besides the value of the asset, that are stored whatever their size.",
            ),
            argument(
                "--drop",
                metavar="NAME,...",
                action="append",
                default=[],
                help="Variables of the cell, besides the value of the asset, that are never stored; the cell runs again if one of them is needed.",
            ),
            argument("--stored", action="store_true", help="Let the cell fail if the value of the asset cannot be stored."),
            argument(
                "--plain",
                action="store_true",
                help="Run the cell like a cell without the magic; define and store nothing.",
            ),
        ]

    return _all_of(shared)


def op_flags() -> Callable[[F], F]:
    """Return a decorator that adds the flags of an op to a magic. They control when the stored value of the op is reused."""
    cache = argument(
        "--cache",
        action="store_true",
        help="Reuse the value of the op in jobs, too; without this flag, the op runs in every run of a job.",
    )
    return _all_of([cache, *_REUSE, _READS])


def _all_of(flags: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    def add(function: F) -> F:
        decorated: Any = function
        for flag in reversed(flags):
            decorated = flag(decorated)
        return decorated  # type: ignore[no-any-return]

    return add


def split_arrow(line: str) -> tuple[str, str | None]:
    """Remove ``-> variable`` from `line`; return the rest of the line and the variable. The variable is None if the line has no arrow."""
    before, arrow, after = line.partition("->")
    if not arrow:
        return line, None
    variable, _, rest = after.strip().partition(" ")
    return f"{before} {rest}".strip(), variable


def read_line(magic: Any, line: str) -> Namespace:
    """Parse `line`, the text after the magic `magic`, and return the arguments.

    Raises
    ------
    UsageError
        If a flag is unknown or has an invalid value, or `line` asks for help. The message suggests flags with similar names.
    """
    return _parsed(magic, line.split(), lambda: untyped.parse_argstring(magic, line))  # type: ignore[no-untyped-call]


def read_signature(magic: Any, line: str) -> tuple[str, Namespace]:
    """Split the line of ``%%op`` into its signature, such as ``transform(data) -> out``, and its flags. Return the signature and the parsed flags.

    Raises
    ------
    UsageError
        For the same reasons as `read_line`.
    """
    options = magic.parser._option_string_actions  # noqa: SLF001 - as in `flags_of`
    signature: list[str] = []
    flags: list[str] = []
    words = _words(line)
    for word in words:
        if not word.startswith("-") or word.startswith("->"):
            signature.append(word)
            continue
        flags.append(word)
        action = options.get(word)
        if action is not None and action.nargs != 0:
            flags += [value.strip("\"'") for value in [next(words, None)] if value is not None]
    return " ".join(signature), _parsed(magic, flags, lambda: magic.parser.parse_args(flags))


def outside_brackets(text: str) -> Iterator[int]:
    """Yield the index of each character of `text` outside of brackets and quotes. Brackets and quotes themselves are left out."""
    depth = 0
    quote = ""
    for place, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif depth <= 0:
            yield place


def _words(text: str) -> Iterator[str]:
    cuts = [place for place in outside_brackets(text) if text[place].isspace()]
    for start, end in pairwise([-1, *cuts, len(text)]):
        if end > start + 1:
            yield text[start + 1 : end]


def _parsed(magic: Any, words: list[str], parse: Callable[[], Namespace]) -> Namespace:
    name = magic.__name__
    prefix = "%%" if name.endswith("asset") or name == "op" else "%"
    if "-h" in words or "--help" in words:
        raise UsageError(f"run {prefix}{name}? to read the help of {prefix}{name}")
    # What a flag means must be clear from the text of the cell alone.
    magic.parser.allow_abbrev = False
    try:
        return parse()
    except UsageError as error:
        options = flags_of(magic)
        long = [option for option in options if option.startswith("--")]
        wrong = [word.partition("=")[0] for word in words if word.startswith("-")]
        near = [option for word in wrong if word not in options for option in difflib.get_close_matches(word, long, 1, 0.5)]
        hint = f" (did you mean {' '.join(near)}?)" if near else ""
        raise UsageError(f"{error}{hint}; run {prefix}{name}? to read the help") from None


_LINE = re.compile(r"^\s*%{1,2}(\w+)\s+(.*)$")
_ASSET_MAGICS = frozenset(("asset", "sql_asset", "multi_asset", "graph_asset"))
_VERB_MAGICS = frozenset(("materialize", "rerun", "why", "lineage"))


# -- completion


def asset_keys(face: Face) -> list[str]:
    """Return the keys of the registered assets."""
    return sorted(face.session.registry.assets)


def step_keys(face: Face) -> list[str]:
    """Return the keys of the registered assets and of the steps inside assets and jobs."""
    keys = set(face.session.registry.assets)
    for definition in face.session.registry.definitions():
        if hasattr(definition, "keys_by_output"):
            keys |= {step.key for step in asset_steps(definition)}
        elif hasattr(definition, "graph"):
            keys |= {f"{definition.name}.{step.key}" for step in job_steps(definition)}
    return sorted(keys)


def flags_of(magic: Any) -> list[str]:
    """Return the flags of `magic`, sorted, such as ``--max-age`` and ``-f``."""
    return sorted(magic.parser._option_string_actions)  # noqa: SLF001 - argparse lists its options nowhere else


def matcher_for(face: Face) -> Callable[[Any], Any]:
    """Return the function that IPython's completer calls to complete the line of a magic of Stepwell. IPython calls such a function a matcher."""

    @context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
    def stepwell_matcher(context: CompletionContext) -> SimpleMatcherResult:
        matches = _matches(face, context.line_with_cursor[: context.cursor_position])
        if matches is None:
            return {"completions": [], "suppress": False}
        fragment, words = matches
        return {
            "completions": [SimpleCompletion(text=word, type="param" if word.startswith("-") else "instance") for word in words],
            "matched_fragment": fragment,
            "suppress": bool(words),
        }

    return stepwell_matcher  # type: ignore[no-any-return,unused-ignore]


def _matches(face: Face, line: str) -> tuple[str, list[str]] | None:
    matched = _LINE.match(line)
    if matched is None:
        return None
    magic, rest = matched.groups()
    words = rest.split(" ")
    fragment, before = words[-1], [word for word in words[:-1] if word]
    last = before[-1] if before else ""
    if magic == "stepwell":
        if not before:
            return fragment, _starting(fragment, VERBS)
        return fragment, _of_verb(face, before[0], fragment)
    if magic in _VERB_MAGICS:
        return fragment, _of_verb(face, magic, fragment)
    if magic == "op" and fragment.startswith("-") and not fragment.startswith("->"):
        return fragment, _starting(fragment, flags_of(getattr(face.settings, magic)))
    if magic not in _ASSET_MAGICS:
        return None
    if last in ("-d", "--dep"):
        return fragment, _starting(fragment, asset_keys(face))
    if last in ("-g", "--group"):
        groups = {
            definition.group_name(key)
            for definition in face.session.registry.definitions()
            if hasattr(definition, "keys_by_output")
            for key in definition.keys
        }
        return fragment, _starting(fragment, sorted(groups))
    if last == "--in" and "=" in fragment:
        part = fragment.partition("=")[2]
        return part, _starting(part, asset_keys(face))
    if fragment.startswith("-"):
        return fragment, _starting(fragment, flags_of(getattr(face.settings, magic)))
    return fragment, _starting(fragment, asset_keys(face))


def _of_verb(face: Face, verb: str, fragment: str) -> list[str]:
    """Return the completions of `fragment`, a word after the command `verb`: flags, or keys if the command takes keys."""
    command = find_command(verb)
    if command is None:
        return []
    if fragment.startswith("-"):
        return _starting(fragment, sorted(flag for argument in command.arguments for flag in argument.flags))
    kind = next((argument.option.completes for argument in command.arguments if argument.option.completes), "")
    return _starting(fragment, _keys(face, kind)) if kind else []


def _keys(face: Face, kind: str) -> list[str]:
    return step_keys(face) if kind == "steps" else asset_keys(face)


def _starting(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]
