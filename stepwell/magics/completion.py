"""Completion of flags, asset keys and step keys on a magic's line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from IPython.core.completer import CompletionContext, SimpleCompletion, SimpleMatcherResult, context_matcher

from stepwell.commands import VERBS
from stepwell.commands.command import find_command
from stepwell.kernel_runtime.planning.plan import asset_steps, job_steps
from stepwell.magics.commands import Stepwell
from stepwell.magics.face import Face

_LINE = re.compile(r"^\s*%{1,2}(\w+)\s+(.*)$")
_ASSET_MAGICS = frozenset(("asset", "sql_asset", "multi_asset", "graph_asset"))
_VERB_MAGICS = frozenset(("materialize", "rerun", "why", "lineage"))


def asset_keys(face: Face) -> list[str]:
    """Return the written keys of what is registered."""
    return sorted(face.session.registry.assets)


def step_keys(face: Face) -> list[str]:
    """Return the keys of assets and of the steps inside them and inside jobs."""
    found = set(face.session.registry.assets)
    for definition in face.session.registry.definitions():
        if hasattr(definition, "keys_by_output"):
            found |= {step.key for step in asset_steps(definition)}
        elif hasattr(definition, "graph"):
            found |= {f"{definition.name}.{step.key}" for step in job_steps(definition)}
    return sorted(found)


def flags_of(magic: str) -> list[str]:
    """Return the flags of a magic."""
    parser = getattr(getattr(Stepwell, magic, None), "parser", None)
    if parser is None:
        return []
    return sorted(option for action in parser._actions for option in action.option_strings)  # noqa: SLF001 - argparse lists its options nowhere else


def matcher_for(face: Face) -> Callable[[Any], Any]:
    """Return the matcher that the extension adds to IPython's completer."""

    @context_matcher()  # type: ignore[untyped-decorator,unused-ignore]
    def stepwell_matcher(context: CompletionContext) -> SimpleMatcherResult:
        found = _matches(face, context.line_with_cursor[: context.cursor_position])
        if found is None:
            return {"completions": [], "suppress": False}
        fragment, words = found
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
        return fragment, _starting(fragment, flags_of(magic))
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
        return fragment, _starting(fragment, flags_of(magic))
    return fragment, _starting(fragment, asset_keys(face))


def _of_verb(face: Face, verb: str, fragment: str) -> list[str]:
    """Return what completes a word of a verb's line: its flags, or the keys that it takes."""
    command = find_command(verb)
    if command is None:
        return []
    if fragment.startswith("-"):
        return _starting(fragment, sorted(flag for each in command.arguments for flag in each.flags))
    kind = next((each.option.completes for each in command.arguments if each.option.completes), "")
    return _starting(fragment, _keys(face, kind)) if kind else []


def _keys(face: Face, kind: str) -> list[str]:
    return step_keys(face) if kind == "steps" else asset_keys(face)


def _starting(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]
