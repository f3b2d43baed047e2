"""The engine does what the state of each step, shown before the run, announced: random graphs, edits, failures, ages, lost files."""

import random
import sqlite3
from collections import Counter
from dataclasses import dataclass

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.session import get_session

CONNECTION = sqlite3.connect(":memory:")
OPTIONS = {
    "volatile": {"volatile": True},
    "uncached": {"cache": False},
    "aged": {"max_age": 1e-6},
    "young": {"max_age": "1d"},
}
TERMS = {"file": ["int(open(PATH).read())"], "no digest": ["bool(CONNECTION)"]}
KINDS = ("plain", "plain", "plain", "large", "large", "large", "file", "file", "nothing", *OPTIONS, *TERMS)
SURE = ("missing", "stale", "failed", "unverifiable")


@dataclass
class Node:
    """An asset; its code adds a constant, and fails or not."""

    name: str
    inputs: list
    kind: str
    added: int = 0
    fails: bool = False

    def definition(self, path):
        """Return the asset, compiled from its text, as in a notebook."""
        values = [node.name for node in self.inputs if node.kind != "nothing"]
        terms = [f"int('{self.added}')", *[f"len({name})" for name in values], *TERMS.get(self.kind, ())]
        size = f"({' + '.join(terms)}) % 5"
        if self.kind == "large":
            # No two nodes have the same value file.
            size = f"{100_000 + 10 * int(self.name.rpartition('_')[2])} + {size}"
        body = "raise ValueError" if self.fails else "return" if self.kind == "nothing" else f"return 'x' * ({size})"
        returns = " -> None" if self.kind == "nothing" else ""
        space = {"__name__": "generated", "PATH": str(path), "CONNECTION": CONNECTION}
        exec(compile(f"def {self.name}({', '.join(values)}){returns}: {body}", "<generated>", "exec"), space)
        order = [node.name for node in self.inputs if node.kind == "nothing"]
        return asset(deps=order, **OPTIONS.get(self.kind, {}))(space[self.name])

    def lose_value(self, store):
        for row in store.current(self.name):
            if row.materialization.value is not None and row.materialization.value.object_name:
                (store.directory / "objects" / row.materialization.value.object_name).unlink(missing_ok=True)


def graph(chance, number):
    nodes = []
    for index in range(7):
        inputs = chance.sample(nodes, min(len(nodes), chance.randint(0, 2)))
        nodes.append(Node(f"a{number}_{index}", inputs, chance.choice(KINDS)))
    return nodes


def edit(chance, nodes, path, store):
    for node in nodes:
        if chance.random() < 0.2:
            node.added, node.fails = chance.choice((0, 1, 5)), chance.random() < 0.2
        if chance.random() < 0.2:
            node.lose_value(store)
    if chance.random() < 0.3:
        path.write_text(chance.choice("01"))


def is_as_announced(node, state, statuses, *, asked, nodes):
    """Return whether the status of a step is one that its state before the run announced."""
    status = statuses[node.name]
    attempted = status in ("executed", "failed")
    if state.state == "fresh":
        return status == "reused"
    if any(statuses[other.name] in ("failed", "untouched") for other in node.inputs):
        return status == "untouched"
    if state.state == "missing" and state.current:
        # Its value is lost: it is computed if it was asked for, or when a step that runs needs it.
        takers = [other.name for other in nodes if node in other.inputs]
        needed = node.name in asked or any(statuses.get(name) in ("executed", "failed") for name in takers)
        return attempted == needed
    return attempted if state.state in SURE else attempted or status == "reused"


def test_the_engine_does_what_the_states_announced(store_dir, tmp_path):
    path = tmp_path / "content.txt"
    path.write_text("0")
    session, store = get_session(), get_session().open(store_dir)
    seen = Counter()
    for number in range(20):
        chance = random.Random(number)
        nodes = graph(chance, number)
        for turn in range(7):
            definitions = {node.name: node.definition(path) for node in nodes}
            asked = list(definitions) if turn == 0 else chance.sample(list(definitions), chance.randint(1, 3))
            given = {"definitions": list(definitions.values()), "store": store}
            states = session.states([definitions[name] for name in asked], **given)
            run = stepwell.materialize([definitions[name] for name in asked], raise_on_error=False, **given)
            statuses = {step.key: step.status for step in run.steps}
            assert statuses.keys() == states.keys()
            for node in nodes:
                if node.name in statuses:
                    state = states[node.name]
                    seen[state.state, statuses[node.name]] += 1
                    assert is_as_announced(node, state, statuses, asked=asked, nodes=nodes), (
                        number,
                        turn,
                        node,
                        states,
                        statuses,
                    )
            edit(chance, nodes, path, store)
    expected = {"fresh reused", "may change reused", "may change executed", "missing reused", "missing executed"}
    expected |= {"stale executed", "failed failed", "unverifiable executed", "stale untouched"}
    assert expected <= {" ".join(pair) for pair in seen}, seen


def test_a_step_changed_back_below_a_stale_one_may_change(store_dir, tmp_path):
    raw = Node("raw_0", [], "plain")
    clean = Node("clean_1", [raw], "plain")

    def run():
        definitions = [node.definition(tmp_path) for node in (raw, clean)]
        states = get_session().states(definitions, store=store_dir)
        steps = stepwell.materialize(definitions, store=store_dir).steps
        return [(state.state, step.status) for state, step in zip(states.values(), steps, strict=True)]

    stepwell.open_store(store_dir)
    assert run() == [("missing", "executed"), ("missing", "executed")]
    clean.added = 1
    assert run() == [("fresh", "reused"), ("stale", "executed")]
    # The value of raw stays the same: clean's first result is there.
    raw.added, clean.added = 5, 0
    assert run() == [("stale", "executed"), ("may change", "reused")]
    raw.added, clean.added = 6, 2
    assert run() == [("stale", "executed"), ("stale", "executed")]
