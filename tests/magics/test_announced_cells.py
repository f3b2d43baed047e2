"""The engine does what the states announced: random notebooks of asset cells that change objects in place, bind names again, leave unstorable values."""

import random
import re
from collections import Counter

from stepwell.kernel_runtime.records.runs import RunEnded
from stepwell.kernel_runtime.session.requests import requesting

SETUP = (
    "import itertools, threading",
    "n = {0}",
    "items = [{0}]",
    "table = {{'a': {0}}}",
    "numbers = itertools.count({0})",
    "def helper(x): return x + {0}",
)
BODY = (
    "items.append({0})",
    "table['a'] += {0}",
    "n = n + {0}",
    "n = {0}",
    "step = next(numbers) + {0}",
    "list(itertools.islice(numbers, {0}))",
    "lock_{1} = threading.Lock()",
    "squares_{1} = (x * x for x in range({0}))",
    "more_{1} = [helper({0})]",
    "open('log.txt', 'a').write('{0}')",
    "open('out_{1}.txt', 'w').write('{0}')",
)
PLAIN = ("n = {0}", "items.append({0})", "items = [{0}]", "table['b'] = {0}", "def helper(x): return x * {0}", "{0}")
VALUE = ("len(items) + {0}", "n * {0}", "table['a'] + n", "helper({0})", "[items, {0}]", "list(range({0}))")
UNSTORED = ("(x for x in range({0}))", "threading.Lock()")
SURE = {"missing", "stale", "failed", "unverifiable"}


class Author:
    """Writes the asset cells of a notebook, and edits them."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.cells = {}
        for number in range(4):
            self.cells[f"a{number}"] = self.cell(number)

    def text(self, forms, number=0):
        return self.chance.choice(forms).format(self.chance.randint(1, 3), number)

    def cell(self, number):
        body = [self.text(BODY, number) for _ in range(self.chance.randint(0, 2))]
        value = self.text(UNSTORED if self.chance.random() < 0.15 else VALUE)
        if number and self.chance.random() < 0.6:
            value = f"({value}, a{self.chance.randrange(number)})"
        return "\n".join([f"%%asset a{number}", *body, f"a{number} = {value}"])

    def edit(self):
        key = self.chance.choice(list(self.cells))
        number = int(key[1:])
        if self.chance.random() < 0.4:
            self.cells[key] = self.cell(number)
        else:
            self.cells[key] = re.sub(r"\b[1-3]\b", str(self.chance.randint(1, 3)), self.cells[key], count=1)


class Kernel:
    """A notebook whose requests are compared with the states that were shown before."""

    def __init__(self, notebook, store):
        self.notebook, self.store = notebook, store
        self.seen = Counter()
        self.runs = []
        notebook.session.subscribe(lambda event: self.runs.append(event.result) if type(event) is RunEnded else None)

    def restart(self):
        session, space = self.notebook.session, self.notebook.ns
        session.close()
        session.registry.assets.clear()
        for name in [name for name in space if not name.startswith("__")]:
            del space[name]
        self.notebook.shell.init_user_ns()
        session.attach(None)
        session.attach(space)
        session.use(self.store)
        self.notebook("\n".join(SETUP).format(1))

    def takers(self, key, names):
        """Return the steps that have an asset as an input."""
        assets = self.notebook.session.registry.assets
        return [name for name in names if key in map(str, assets[name].definition.upstream_keys)]

    def request(self, key, text, *, cell):
        """Run a cell; return what was shown of each step and what happened, where these contradict each other."""
        session = self.notebook.session
        definition = session.registry.assets[key].definition
        with requesting(session.timeline, [definition], cell=cell):
            states = session.states([definition])
        self.runs.clear()
        self.notebook.run(text)
        statuses = {step.key: step.status for step in self.runs[0].steps}
        if statuses.keys() != states.keys():
            # A cell whose values are not stored ran before, because this one needs them or changes what it reads.
            self.seen["another first"] += 1
            return {}
        takers = {name: self.takers(name, statuses) for name in states}
        wrong = {}
        for name, state in states.items():
            status = statuses[name]
            self.seen[f"{state.state} {status}"] += 1
            self.seen.update(reason.text.rpartition(": ")[2] for reason in state.reasons if reason.kind == "unrestorable")
            unstored = any(item.value is None for item in state.current)
            if unstored and status == "executed" and "executed" in [statuses[taker] for taker in takers[name]]:
                # A value that is not stored is computed again when a step that runs needs it.
                continue
            if (state.state == "fresh" and status != "reused") or (state.state in SURE and status == "reused"):
                wrong[name] = (state, status)
        return wrong


def test_the_engine_does_what_the_states_of_cells_announced(notebook, tmp_path):
    kernel = Kernel(notebook, tmp_path / "store")
    for seed in range(1, 5):
        author = Author(seed)
        kernel.restart()
        for turn in range(4):
            keys = list(author.cells) if turn != 1 else author.chance.sample(list(author.cells), 3)
            for key in keys:
                if author.chance.random() < 0.25:
                    notebook.run(author.text(PLAIN))
                if key not in notebook.session.registry.assets or author.chance.random() < 0.7:
                    text = author.cells[key]
                    notebook.run(text.replace("\n", " -n\n", 1))
                    wrong = kernel.request(key, text, cell=True)
                else:
                    wrong = kernel.request(key, f"%materialize {key}", cell=False)
                assert not wrong, (seed, turn, key, wrong, list(author.cells.values()))
            author.edit()
            if author.chance.random() < 0.5:
                kernel.restart()
    expected = {"fresh reused", "may change executed", "missing executed", "stale executed"}
    assert expected | {"the step runs once in every kernel"} <= kernel.seen.keys(), kernel.seen
