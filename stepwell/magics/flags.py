"""The line of a magic: the flags that asset cells and ops share, parsing and completion.

Flags are declared with IPython's decorators, so that ``?`` explains them. The line of ``%%op`` is a signature with flags before or after it;
the parentheses with their contents and the arrow with the names after it belong to the signature. Completion offers flags, asset keys and
step keys.
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
    """Return IPython's decorator of the same name, which adds flags and the help that ``?`` shows, with a type annotation."""
    return untyped.magic_arguments()  # type: ignore[no-untyped-call]


def argument(*flags: str, **options: Any) -> Callable[[F], F]:
    """Return IPython's decorator of the same name, which adds one flag, with a type annotation."""
    return untyped.argument(*flags, **options)  # type: ignore[no-untyped-call]


_REUSE = (
    argument("--no-cache", action="store_true", help="Run the step in every run."),
    argument(
        "--ignore",
        metavar="NAME,...",
        action="append",
        default=[],
        help="Variables, or attributes of objects (session.cookies), whose changes make nothing stale.",
    ),
    argument("--max-age", metavar="AGE", help="Reuse the value only while it is younger than this: 30m, 12h, 1d."),
    argument(
        "--volatile",
        action="store_true",
        help="Run the step in every run that asks for it; later steps run only if its value changed.",
    ),
)
_READS = argument(
    "--reads",
    metavar="GLOB",
    action="append",
    default=[],
    help="Files that the body reads unseen, such as data/*.csv; checked before the value is reused.",
)


def asset_flags(*, inputs: bool, cell: bool = True) -> Callable[[F], F]:
    """Add the flags that asset cells share."""
    shared = [
        argument("-r", "--register", action="store_true", help="Register only; run nothing."),
        argument("-n", "--dry-run", action="store_true", help="Show what would run; run nothing."),
        argument("-f", "--force", action="store_true", help="Run the asset even if its stored value could be reused."),
        argument("-q", "--quiet", action="store_true", help="Display nothing."),
        argument("-g", "--group", metavar="GROUP", help="The asset's group."),
        argument(
            "-k",
            "--key-prefix",
            metavar="PREFIX",
            help="A prefix for the key: with raw, flights has the key raw/flights.",
        ),
        argument(
            "--in",
            dest="inputs",
            metavar="NAME=KEY",
            action="append",
            default=[],
            help="The asset that a name in the body refers to: flights=raw/flights.",
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
                help="An asset that must be current first; it is not loaded.",
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
                help="Other variables of the cell to store, at any size.",
            ),
            argument(
                "--drop",
                metavar="NAME,...",
                action="append",
                default=[],
                help="Other variables of the cell never to store; the cell runs again when one is needed.",
            ),
            argument("--stored", action="store_true", help="Fail if the value cannot be stored."),
            argument("--plain", action="store_true", help="Run the body as an ordinary cell; store nothing."),
        ]

    return _all_of(shared)


def op_flags() -> Callable[[F], F]:
    """Add the flags of ops, which control the reuse of their values."""
    cache = argument(
        "--cache", action="store_true", help="Reuse the value in jobs too; without this flag ops of jobs always run."
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
    """Split a line into the text before ``-> variable`` and the variable (None if the line has no arrow)."""
    before, arrow, after = line.partition("->")
    if not arrow:
        return line, None
    variable, _, rest = after.strip().partition(" ")
    return f"{before} {rest}".strip(), variable


def read_line(magic: Any, line: str) -> Namespace:
    """Return the arguments on the line of a magic.

    Raises
    ------
    UsageError
        If a flag is unknown or has an invalid value; the message suggests flags with similar names.
    """
    return _parsed(magic, line.split(), lambda: untyped.parse_argstring(magic, line))  # type: ignore[no-untyped-call]


def read_signature(magic: Any, line: str) -> tuple[str, Namespace]:
    """Return the signature on the line of ``%%op``, and the arguments from the flags.

    Raises
    ------
    UsageError
        As in `read_line`.
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
    """Yield the positions in a line that are neither inside brackets nor inside quotes."""
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
        raise UsageError(f"{prefix}{name}? explains its flags")
    try:
        return parse()
    except UsageError as error:
        options = flags_of(magic)
        long = [option for option in options if option.startswith("--")]
        wrong = [word.partition("=")[0] for word in words if word.startswith("-")]
        near = [
            option for word in wrong if word not in options for option in difflib.get_close_matches(word, long, 1, 0.5)
        ]
        hint = f" (did you mean {' '.join(near)}?)" if near else ""
        raise UsageError(f"{error}{hint}; {prefix}{name}? explains its flags") from None


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
    """Return the flags of a magic."""
    return sorted(magic.parser._option_string_actions)  # noqa: SLF001 - argparse lists its options nowhere else


def matcher_for(face: Face) -> Callable[[Any], Any]:
    """Return the matcher that the extension adds to IPython's completer."""

    @context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
    def stepwell_matcher(context: CompletionContext) -> SimpleMatcherResult:
        matches = _matches(face, context.line_with_cursor[: context.cursor_position])
        if matches is None:
            return {"completions": [], "suppress": False}
        fragment, words = matches
        return {
            "completions": [
                SimpleCompletion(text=word, type="param" if word.startswith("-") else "instance") for word in words
            ],
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
    """Return completions for a word on a verb's line: flags, or the keys that the verb takes."""
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
