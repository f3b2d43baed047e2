"""Selection strings, and plans for the assets that they select, with the upstream steps that these assets need.

In a selection string, each of these forms selects assets:

================================  ==========================================================================================
``a``, ``key:a``                  the asset with the key ``a``
``"a*"``, ``key:"a*"``            the assets whose keys match the pattern
``group:x``, ``kind:sql``         the assets of this group, the assets of this kind
``*``                             all assets
``roots(...)``                    the assets of the inner selection that have no other asset of this selection
                                  directly upstream
``sinks(...)``                    the assets of the inner selection that have no other asset of this selection
                                  directly downstream
``(...)``                         the assets that the inner selection selects
================================  ==========================================================================================

Signs before or after a form add upstream or downstream assets. A sign before the form can be combined with one after it (``*a+``). In this
table, ``group:x`` stands for any form:

================================  ==========================================================================================
``+group:x``, ``group:x+``        also the assets directly upstream, or directly downstream
``++group:x``, ``group:x++``      also the assets up to two levels upstream, or downstream; one ``+`` for each level
``2+group:x``, ``group:x+2``      the same as ``++``; ``2+a`` and ``2+roots(...)`` are errors, ``2+key:a`` and ``a+2`` are not
``*a``, ``a*``                    also all assets upstream, or all assets downstream; only for a plain key (``key:a*`` is a
                                  pattern)
================================  ==========================================================================================

Selections are combined with ``not``, ``and`` and ``or``; ``not`` binds most tightly, ``or`` least tightly. Most forms and signs are those of
Dagster's older syntax (``*a``) or newer syntax (``key:a``). One differs: in Dagster's newer syntax, ``+key:a`` adds all upstream assets; here, it
adds only those directly upstream, as ``+a`` does.

`build_plan` looks up the definition of an upstream asset first in the definitions that were passed, then in the registry. If the asset has no
definition, its value is read from the store. If the code of a step, for example a helper function, reads a global variable that refers to an
asset, this asset becomes an input of the step. Only the code walk finds such inputs, so the code versions are computed while the plan is built.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from stepwell.kernel_runtime.definitions.assets import AssetsDefinition, SourceAsset
from stepwell.kernel_runtime.definitions.graphs import GraphDefinition, JobDefinition
from stepwell.kernel_runtime.definitions.ops import OpDefinition
from stepwell.kernel_runtime.errors import CycleError, DuplicateKeyError, InvalidSelectionError, unknown_key
from stepwell.kernel_runtime.planning.plan import Plan, PlanInput, PlanStep, asset_steps, job_steps, order_steps
from stepwell.kernel_runtime.records.bulk import no_collection
from stepwell.kernel_runtime.records.keys import AssetKey, keys_text

if TYPE_CHECKING:
    from stepwell.kernel_runtime.versions.walk import CodeWalk

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<depth>\d+\+(?=key:|"|[A-Za-z_*(])) | (?P<plus>\++\d*) | (?P<open>\() | (?P<close>\)) |
    (?P<attribute>(?:key|group|kind|tag|owner):) | (?P<quoted>"[^"]*") | (?P<name>\*?[A-Za-z0-9_][A-Za-z0-9_/.]*\*?|\*)
    )""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class SelectionGraph:
    """The assets from which a selection string selects, with the edges between them."""

    upstream: Mapping[str, Collection[str]]
    """Maps each asset key to the keys of the assets directly upstream."""
    groups: Mapping[str, str]
    """Maps each asset key to the name of the asset's group."""
    kinds: Mapping[str, str]
    """Maps each asset key to the kind of the asset: ``asset``, ``multi``, ``graph``, ``sql`` or ``source``."""

    def downstream(self) -> dict[str, list[str]]:
        """Return a dict that maps each asset key to the keys of the assets directly downstream."""
        consumers: dict[str, list[str]] = {key: [] for key in self.upstream}
        for key, needs in self.upstream.items():
            for need in needs:
                consumers.setdefault(need, []).append(key)
        return consumers


def select(expressions: str | Iterable[str], graph: SelectionGraph) -> list[str]:
    """Return the asset keys that one or more selection strings select, in the order of ``graph.upstream``.

    Parameters
    ----------
    expressions
        Selection strings. A string that equals an asset key selects this asset.

    Raises
    ------
    UnknownKeyError
        If a key, pattern, group or kind in an expression matches no asset. The remedy lists similar names.
    InvalidSelectionError
        If an expression has a syntax error.
    """
    chosen: set[str] = set()
    for expression in [expressions] if isinstance(expressions, str) else expressions:
        chosen |= {expression} if expression in graph.upstream else _Parser(expression, graph).parse()
    return [key for key in graph.upstream if key in chosen]


class _Parser:
    def __init__(self, text: str, graph: SelectionGraph) -> None:
        self.text = text
        self.graph = graph
        self.downstream = graph.downstream()
        self.tokens = self._tokens()
        self.position = 0

    def _tokens(self) -> list[tuple[str, str]]:
        tokens, position = [], 0
        while position < len(self.text.rstrip()):
            match = _TOKEN.match(self.text, position)
            if match is None or match.lastgroup is None:
                raise self._error(f"unexpected {self.text[position:].strip()[:12]!r}")
            tokens.append((match.lastgroup, match.group(match.lastgroup)))
            position = match.end()
        return tokens

    def _error(self, problem: str, remedy: str = "") -> InvalidSelectionError:
        remedy = remedy or (
            "to select several assets, separate them by spaces in a magic, pass a list in Python, or write: a or b"
            if "," in self.text
            else "write a selection like one of these: clean, +clean, clean+, *clean, group:raw, not (a or b)"
        )
        return InvalidSelectionError(f"the selection {self.text!r} is invalid: {problem}", remedy=remedy)

    def _peek(self) -> tuple[str, str]:
        return self.tokens[self.position] if self.position < len(self.tokens) else ("end", "")

    def _next_token(self) -> tuple[str, str]:
        token = self._peek()
        self.position += 1
        return token

    def parse(self) -> set[str]:
        if not self.tokens:
            raise self._error("it is empty")
        keys = self._or()
        if self._peek()[0] != "end":
            raise self._error(f"unexpected {self._peek()[1]!r}")
        return keys

    def _or(self) -> set[str]:
        keys = self._and()
        while self._peek() == ("name", "or"):
            self._next_token()
            keys = keys | self._and()
        return keys

    def _and(self) -> set[str]:
        keys = self._not()
        while self._peek() == ("name", "and"):
            self._next_token()
            keys = keys & self._not()
        return keys

    def _not(self) -> set[str]:
        if self._peek() == ("name", "not"):
            self._next_token()
            return set(self.graph.upstream) - self._not()
        return self._walked()

    def _walked(self) -> set[str]:
        up = 0
        kind, text = self._peek()
        if kind == "depth":
            up = int(self._next_token()[1][:-1])
            if self._peek()[0] == "name":
                raise self._error(
                    f"{text!r} must be followed by a filter such as key:{self._peek()[1]}",
                    f"write {up}+key:{self._peek()[1]}, or one + for each level: {'+' * up}{self._peek()[1]}",
                )
        elif kind == "plus":
            if text[-1].isdigit():
                raise self._error(f"unexpected {text!r}")
            up = len(self._next_token()[1])
        keys, all_up, all_down = self._atom()
        down = 0
        if self._peek()[0] == "plus":
            text = self._next_token()[1]
            digits = text.lstrip("+")
            down = int(digits) if digits else len(text)
        start = keys
        if up or all_up:
            keys = keys | self._reach(start, self.graph.upstream, None if all_up else up)
        if down or all_down:
            keys = keys | self._reach(start, self.downstream, None if all_down else down)
        return keys

    def _atom(self) -> tuple[set[str], bool, bool]:
        kind, text = self._next_token()
        if kind == "open":
            keys = self._or()
            self._close()
            return keys, False, False
        if kind == "attribute":
            return self._attribute(text[:-1]), False, False
        if kind == "quoted":
            return self._matching(text[1:-1]), False, False
        if kind != "name" or (text in {"and", "or"} and text not in self.graph.upstream):
            raise self._error(f"unexpected {text!r}" if text else "an asset is missing at the end")
        if text == "*":
            return set(self.graph.upstream), False, False
        if text in {"roots", "sinks"} and self._peek()[0] == "open":
            self._next_token()
            inner = self._or()
            self._close()
            edges = self.graph.upstream if text == "roots" else self.downstream
            return {key for key in inner if not any(other in inner for other in edges.get(key, ()))}, False, False
        all_up, all_down = text.startswith("*"), text.endswith("*")
        return self._matching(text.strip("*")), all_up, all_down

    def _close(self) -> None:
        if self._next_token()[0] != "close":
            raise self._error("a parenthesis is not closed")

    def _attribute(self, name: str) -> set[str]:
        kind, text = self._next_token()
        if kind not in {"name", "quoted"}:
            raise self._error(f"a name is missing after '{name}:'")
        value = text.strip('"')
        if name == "key":
            return self._matching(value)
        if name not in {"group", "kind"}:
            raise self._error(f"assets cannot be selected by '{name}:'")
        values = self.graph.groups if name == "group" else self.graph.kinds
        keys = {key for key in self.graph.upstream if fnmatch.fnmatchcase(values.get(key, ""), value)}
        if not keys:
            raise unknown_key(name, value, set(values.values()))
        return keys

    def _matching(self, pattern: str) -> set[str]:
        if "*" in pattern:
            keys = {key for key in self.graph.upstream if fnmatch.fnmatchcase(key, pattern)}
        else:
            keys = {pattern} & set(self.graph.upstream)
        if not keys:
            raise unknown_key("asset", pattern, self.graph.upstream)
        return keys

    @staticmethod
    def _reach(start: set[str], edges: Mapping[str, Collection[str]], depth: int | None) -> set[str]:
        reached, frontier, level = set(start), set(start), 0
        while frontier and (depth is None or level < depth):
            frontier = {other for key in frontier for other in edges.get(key, ())} - reached
            reached |= frontier
            level += 1
        return reached


@dataclass(slots=True)
class Definitions:
    """The definitions that a request uses: the definitions that were passed and, for all other keys, the registered ones."""

    requested: Mapping[str, AssetsDefinition | SourceAsset] = field(default_factory=dict)
    """The definitions that were passed to the request, by asset key."""
    registered: Mapping[str, AssetsDefinition | SourceAsset] = field(default_factory=dict)
    """The definitions in the registry, by asset key."""
    jobs: Mapping[str, JobDefinition] = field(default_factory=dict)
    """The jobs by name; a passed job takes precedence over a registered one."""
    _names: dict[str, str] | None = None
    """The result of `names`; None before the first call."""

    def asset(self, key: str) -> AssetsDefinition | SourceAsset | None:
        """Return the definition of the asset with a key; None if the key is not defined."""
        return self.requested.get(key) or self.registered.get(key)

    def keys(self) -> list[str]:
        """Return the keys of all defined assets, those of passed definitions first."""
        return list(self._all_definitions())

    def _all_definitions(self) -> dict[str, AssetsDefinition | SourceAsset]:
        return {**self.requested, **self.registered, **self.requested} if self.registered else {**self.requested}

    def computed_assets(self) -> dict[str, AssetsDefinition]:
        """Return the definitions of all assets except source assets, by key."""
        return {
            key: definition for key, definition in self._all_definitions().items() if isinstance(definition, AssetsDefinition)
        }

    def names(self) -> dict[str, str]:
        """Return a dict that maps the names by which code can refer to assets to the keys of these assets.

        The name of an asset is the last component of its key, for example ``flights`` for ``raw/flights``. A last component that
        several keys share is left out, because it does not say which asset is meant.
        """
        if self._names is not None:
            return self._names
        names: dict[str, str] = {}
        shared: set[str] = set()
        for key in self.keys():
            name = key.rsplit("/", 1)[-1]
            if name in names:
                shared.add(name)
            names[name] = key
        self._names = {name: key for name, key in names.items() if name not in shared} if shared else names
        return self._names

    def graph(self) -> SelectionGraph:
        """Return the defined assets and their edges, for `select`."""
        upstream: dict[str, list[str]] = {}
        groups: dict[str, str] = {}
        kinds: dict[str, str] = {}
        for key in self.keys():
            definition = self.asset(key)
            if isinstance(definition, AssetsDefinition):
                upstream[key] = [str(other) for other in definition.upstream_keys]
                groups[key] = definition.group_name(AssetKey.from_user_string(key))
                kinds[key] = definition.kind.removesuffix("_asset")
            elif definition is not None:
                upstream[key] = []
                groups[key] = definition.group_name
                kinds[key] = "source"
        return SelectionGraph(upstream, groups, kinds)


def resolve_targets(targets: Sequence[str] | None, definitions: Definitions) -> list[str]:
    """Return the keys of the assets that targets select.

    Parameters
    ----------
    targets
        Asset keys, step keys and selection strings. A step key selects all assets of the definition to which the step belongs. None for all
        defined assets except source assets.

    Raises
    ------
    UnknownKeyError
        If a target or a name in a selection string matches no asset or step.
    InvalidSelectionError
        If a target is not a key, and has a syntax error as a selection string.
    """
    if targets is None:
        return [key for key, definition in definitions.computed_assets().items() if definition is not None]
    chosen: dict[str, None] = {}
    graph: SelectionGraph | None = None
    for target in targets:
        if definitions.asset(target) is not None:
            chosen[target] = None
            continue
        owner = step_owner(target, definitions)
        if owner is not None:
            chosen.update(dict.fromkeys(owner.written_keys))
            continue
        graph = graph or definitions.graph()
        chosen.update(dict.fromkeys(select(target, graph)))
    return list(chosen)


def step_owner(key: str, definitions: Definitions) -> AssetsDefinition | None:
    """Return the definition of the asset or multi-asset that has the step `key`; None if no definition has this step."""
    parent = key.split(".", 1)[0]
    definition = definitions.asset(parent)
    if isinstance(definition, AssetsDefinition) and "." in key and isinstance(definition.node, GraphDefinition):
        return definition if any(step.key == key for step in asset_steps(definition)) else None
    if "." not in key:
        return next((other for other in definitions.computed_assets().values() if other.step_key == key), None)
    return None


def build_plan(
    targets: Collection[str],
    definitions: Definitions,
    code: CodeWalk,
    *,
    upstream: bool = True,
    steps_only: Collection[str] | None = None,
) -> Plan:
    """Return a plan with the steps that bring assets up to date.

    Parameters
    ----------
    targets
        Asset keys as strings. Keys of source assets, and keys without a definition, are ignored.
    code
        The code walk that computes the code versions of the steps.
    upstream
        True to include the steps of upstream assets in the plan; False to read the values of upstream assets from the store.
    steps_only
        The keys of the only steps to include; the values of all other steps are read from the store. None to include all steps.

    Raises
    ------
    CycleError
        If assets depend on each other in a cycle.
    DuplicateKeyError
        If two steps have the same key or compute the same value.
    """
    with no_collection():
        return _plan(targets, definitions, code, upstream=upstream, steps_only=steps_only)


def _plan(
    targets: Collection[str],
    definitions: Definitions,
    code: CodeWalk,
    *,
    upstream: bool,
    steps_only: Collection[str] | None,
) -> Plan:
    keys = code.asset_keys
    steps_of: dict[AssetsDefinition, list[PlanStep]] = {}
    pending: list[str] = list(targets)
    requested_keys = set(pending)
    seen = set(pending)
    target_steps: set[str] = set()
    while pending:
        key = pending.pop()
        definition = definitions.asset(key)
        if not isinstance(definition, AssetsDefinition) or definition in steps_of:
            continue
        steps = asset_steps(definition)
        if steps_only is not None:
            steps = [step for step in steps if step.key in steps_only]
        steps_of[definition] = steps
        definition_keys = definition.written_keys
        if not requested_keys.isdisjoint(definition_keys):
            target_steps.update([step.key for step in steps])
        for step in steps:
            if step.op.defaults and isinstance(definition.node, OpDefinition):
                _take_defaults(step, definitions)
            _walk_step_code(step, code, keys)
            for input_key in step.input_keys:
                if input_key in seen or input_key in definition_keys:
                    continue
                seen.add(input_key)
                if upstream:
                    pending.append(input_key)
    in_order = [
        step for each in dict.fromkeys(definitions.computed_assets().values()) if each in steps_of for step in steps_of[each]
    ]
    return finish(Plan("assets", tuple(targets), tuple(in_order), target_steps=frozenset(target_steps)))


def build_job_plan(job: JobDefinition, code: CodeWalk, *, steps_only: Collection[str] | None = None) -> Plan:
    """Return a plan for the steps of a job. The values of the assets that the job reads are read from the store.

    Parameters
    ----------
    code
        The code walk that computes the code versions of the memoised steps (`PlanStep.memoised`); other steps get none.
    steps_only
        The keys of the only steps to include; None to include all steps.

    Raises
    ------
    InvalidDefinitionError
        If an input of a step is not connected to an output or asset, and its parameter has no default.
    """
    steps = [step for step in job_steps(job) if steps_only is None or step.key in steps_only]
    for step in steps:
        if step.memoised:
            _walk_step_code(step, code, {})
    return finish(Plan("job", (job.name,), tuple(steps), target_steps=frozenset(step.key for step in steps)))


def finish(plan: Plan) -> Plan:
    """Complete a plan and return it: order its steps, and set `Plan.producers` and `Plan.read_keys`.

    Raises
    ------
    CycleError
        If steps depend on each other in a cycle.
    DuplicateKeyError
        If two steps have the same key or compute the same value.
    """
    _check_keys(plan.steps)
    ordered, cycle = order_steps(list(plan.steps))
    if cycle:
        places = {step.key: step.where for step in plan.steps}
        raise CycleError(
            "assets depend on each other in a cycle: " + " -> ".join(reversed(cycle)),
            where=keys_text(dict.fromkeys(f"{key} in {places[key]}" for key in cycle if places.get(key))),
            remedy="remove one of these inputs, or split one of the assets into two assets",
        )
    plan.steps = tuple(ordered)
    plan.producers = {output.key: step for step in ordered for output in step.outputs}
    plan.read_keys = tuple(dict.fromkeys(key for step in ordered for key in step.input_keys if key not in plan.producers))
    return plan


def _check_keys(steps: Iterable[PlanStep]) -> None:
    """Raise `DuplicateKeyError` if two steps have the same key or compute the same value."""
    owners: dict[str, PlanStep] = {}
    for step in steps:
        for key in (step.key, *[output.key for output in step.outputs]):
            other = owners.setdefault(key, step)
            if other is not step:
                raise DuplicateKeyError(
                    f"two steps have the key {key!r}, or compute a value with this key",
                    where=keys_text(dict.fromkeys(place for place in (other.where, step.where) if place)),
                    remedy="remove one of the definitions, or rename a multi-asset: @multi_asset(name=...)",
                )


def _take_defaults(step: PlanStep, definitions: Definitions) -> None:
    """Change the inputs of a step: a parameter with a default uses this default if no asset has the parameter's name."""
    defaults = step.op.defaults
    inputs = tuple(
        PlanInput(given.name, (), default=defaults[given.name])
        if given.name in defaults and given.keys == (given.name,) and definitions.asset(given.name) is None
        else given
        for given in step.inputs
    )
    if inputs != step.inputs:
        step.inputs = ()
        step.add_inputs(inputs)


def _walk_step_code(step: PlanStep, code: CodeWalk, keys: Mapping[str, str]) -> None:
    """Compute the code version of a step, and add the assets that its code reads as globals to its inputs.

    Parameters
    ----------
    keys
        Maps each name by which code can refer to an asset to the key of the asset. A name that is not in the mapping adds no input.
    """
    step.code = code.of(step.op.body, path=step.key, extra=step_extra(step), ignore=step.op.ignore)
    if step.code.asset_names:
        input_keys = set(step.input_keys)
        output_keys = {output.key for output in step.outputs}
        assets_read = {name: keys[name] for name, _ in step.code.asset_names if name in keys}
        new_inputs = [
            PlanInput(name, (key,), is_declared=False)
            for name, key in assets_read.items()
            if key not in input_keys and key not in output_keys
        ]
        step.add_inputs(tuple(new_inputs))


def step_extra(step: PlanStep) -> list[tuple[str, object]]:
    """Return what goes into a step's code version besides the step's body, as pairs of a description and a value.

    These are the values of the config, the defaults of unconnected inputs, and the declared reads.
    """
    extra: list[tuple[str, object]] = []
    if step.config:
        extra += [(f"config {name}", value) for name, value in step.config.items()]
    for given in step.inputs:
        if not given.keys and given.carries_value and given.name:
            extra.append((f"default of {given.name}", given.default))
    if step.op.reads:
        # A result that was stored before a file was declared does not contain a read of this file, so the result must not be reused.
        extra.append(("declared reads", step.op.reads))
    return extra


def unknown_step(key: str, definitions: Definitions, stored_keys: Callable[[], Iterable[str]] | None = None) -> Exception:
    """Return the error for a step key that does not exist; its remedy lists similar keys.

    Parameters
    ----------
    stored_keys
        Returns further keys, usually those of the store, that the remedy may list besides the keys of defined steps. None to list only keys of
        defined steps.
    """
    keys = [step.key for definition in dict.fromkeys(definitions.computed_assets().values()) for step in asset_steps(definition)]
    keys += [f"{job.name}.{step.key}" for job in definitions.jobs.values() for step in job_steps(job)]
    return unknown_key("step", key, [*keys, *(stored_keys() if stored_keys else ())])
