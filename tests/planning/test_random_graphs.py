"""Random graphs, random edits, several runs on one store: what runs is what a naive recomputation says must run."""

from dataclasses import dataclass, field
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stepwell
from stepwell import asset, graph_asset, op
from stepwell.kernel_runtime.session import get_session

_examples = count()


@dataclass(frozen=True)
class Node:
    values: tuple[int, ...]
    order: tuple[int, ...]
    is_graph: bool


@dataclass(frozen=True)
class Round:
    codes: tuple[tuple[int, int], ...]
    """For each node the constant that it adds and the modulus, both part of its code."""
    targets: tuple[int, ...]
    everything: bool
    """Whether the targets run even if they could be reused."""


@st.composite
def histories(draw):
    nodes = []
    for index in range(draw(st.integers(2, 6))):
        earlier = st.lists(st.integers(0, index - 1), max_size=3, unique=True).map(sorted).map(tuple) if index else st.just(())
        values = draw(earlier)
        is_graph = bool(values) and draw(st.booleans())
        order = () if is_graph else tuple(i for i in draw(earlier) if i not in values)
        nodes.append(Node(values, order, is_graph))
    code = st.tuples(st.integers(0, 2), st.sampled_from([2, 7]))
    rounds, codes = [], [draw(code) for _ in nodes]
    for _ in range(draw(st.integers(2, 5))):
        for edited in draw(st.lists(st.integers(0, len(nodes) - 1), max_size=2)):
            codes[edited] = draw(code)
        targets = draw(st.lists(st.integers(0, len(nodes) - 1), min_size=1, max_size=3, unique=True))
        rounds.append(Round(tuple(codes), tuple(targets), draw(st.integers(0, 5)) == 0))
    return nodes, rounds


def define(prefix, nodes, codes):
    """Make the definitions by compiling their text, as a notebook does."""
    made = []
    for index, (node, (add, modulus)) in enumerate(zip(nodes, codes, strict=True)):
        name = f"{prefix}{index}"
        inputs = [f"{prefix}{i}" for i in node.values]
        if node.is_graph:
            text = (
                "def total(values): return sum(values)\n"
                f"def shift(x): return (x + {add}) % {modulus}\n"
                f"def {name}({', '.join(inputs)}): return shift(total([{', '.join(inputs)}]))\n"
            )
            space = {"__name__": "generated"}
            exec(compile(text, "<generated>", "exec"), space)
            space["total"], space["shift"] = op(space["total"]), op(space["shift"])
            made.append(graph_asset(space[name]))
        else:
            text = f"def {name}({', '.join(inputs)}): return sum([{', '.join([str(add), *inputs])}]) % {modulus}\n"
            space = {"__name__": "generated"}
            exec(compile(text, "<generated>", "exec"), space)
            made.append(asset(deps=[f"{prefix}{i}" for i in node.order])(space[name]))
    return made


@dataclass
class Naive:
    """Recomputes everything, and notes what a store of every result could have answered."""

    kept: dict = field(default_factory=dict)
    """For each step, code and inputs the number of its newest materialization."""
    numbers: count = field(default_factory=count)

    def step(self, key, inputs, forced):
        known = self.kept.get((key, inputs))
        if known is not None and not forced:
            return known, "reused"
        self.kept[key, inputs] = number = next(self.numbers)
        return number, "executed"

    def run(self, nodes, this):
        needed, pending = set(), list(this.targets)
        while pending:
            index = pending.pop()
            if index not in needed:
                needed.add(index)
                pending += [*nodes[index].values, *nodes[index].order]
        values, made, statuses = {}, {}, {}
        for index in sorted(needed):
            node, (add, modulus) = nodes[index], this.codes[index]
            forced = this.everything and index in this.targets
            taken = tuple(values[i] for i in node.values)
            values[index] = (sum(taken) + add) % modulus
            if node.is_graph:
                _, statuses[f"{index}.total"] = self.step((index, "total"), taken, forced)
                made[index], statuses[f"{index}.shift"] = self.step((index, add, modulus), sum(taken), forced)
            else:
                after = tuple(made[i] for i in node.order)
                made[index], statuses[str(index)] = self.step((index, add, modulus), (taken, after), forced)
        return values, statuses


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory):
    directory = tmp_path_factory.mktemp("random") / "kept"
    yield directory
    stepwell.get_session().open(directory).close()


@settings(max_examples=60, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(histories())
def test_what_runs_is_what_must_run(shared_store, history):
    nodes, rounds = history
    prefix = f"e{next(_examples)}_"
    naive = Naive()
    for this in rounds:
        definitions = define(prefix, nodes, this.codes)
        expected_values, expected = naive.run(nodes, this)
        targets = [definitions[index] for index in this.targets]
        before = get_session().states(targets, definitions=definitions, store=shared_store) if shared_store.exists() else {}
        result = stepwell.materialize(targets, definitions=definitions, store=shared_store, force=this.everything)
        assert {step.key.removeprefix(prefix): step.status for step in result.steps} == expected
        for index, value in expected_values.items():
            assert result.value(f"{prefix}{index}") == value
            assert stepwell.load(f"{prefix}{index}", store=shared_store) == value
        for key, state in before.items():
            forced = this.everything and int(key.removeprefix(prefix).split(".")[0]) in this.targets
            if state.state == "fresh" and not forced and not this.everything:
                assert result.step(key).status == "reused"
            if state.state in ("missing", "stale"):
                assert result.step(key).status == "executed"
        after = get_session().states(targets, definitions=definitions, store=shared_store)
        assert {state.state for state in after.values()} == {"fresh"}
