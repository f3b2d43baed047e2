"""An editing fuzzer over the whole product: random notebooks, random edits, every value compared with one computed without a store.

    python fuzzer.py [--edits 200] [--seed 1] [--only NOTEBOOK] [-v]

After each edit the changed cells are executed and the assets materialised in one live kernel; now and then a fresh process
executes the whole notebook against the same store, with another hash seed. A value that differs from what the functions give without a
store is stale. A step that ran although its code, by text, and everything that this code reaches, by text or value, is what it was in
an earlier run is needless: to know that, the fuzzer keeps for each name what was last executed for it, and what that held and calls.
"""

import argparse
import ast
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from fuzz_notebooks import PRELUDE, SHOW, Writer

HERE = Path(__file__).parent
EDITS = {
    "value": 5,
    "body": 4,
    "comment": 3,
    "rename": 1,
    "move": 1,
    "change": 5,
    "undo": 3,
    "file": 1,
    "again": 1,
    "reload": 1,
}
PER_NOTEBOOK = 25


def meaning(text):
    """What a text says to Python, comments and lines left out."""
    return ast.dump(ast.parse(text))


class Executed:
    """What a name was bound to by the execution of a cell."""

    def __init__(self, text, calls, holds):
        self.text = text
        self.calls = calls
        self.holds = holds
        self.value = None
        self.changes = ()


class Bindings(dict):
    """What a kernel has executed last for each name."""

    def state(self, name, above=()):
        """Return all that counts for what a name is bound to; `above` are the names that led here."""
        return "recursion" if name in above else self._state(self.get(name), (*above, name))

    def _state(self, item, above):
        if item is None:
            return "missing"
        told = item.text if item.value is None else item.value
        below = [self._state(held, above) for held in item.holds]
        below += [(name, self.state(name, above)) for name in item.calls]
        return f"{told} {item.changes} {below}"


@dataclass
class Report:
    edits: int = 0
    steps: int = 0
    executed: int = 0
    stale: list = field(default_factory=list)
    needless: list = field(default_factory=list)
    unverifiable: list = field(default_factory=list)
    failed: int = 0

    def __str__(self):
        return f"{self.edits} edits, {self.steps} steps ({self.executed} executed, {self.failed} failed): {len(self.stale)} stale, {len(self.needless)} needless, {len(self.unverifiable)} unverifiable"


class Notebook:
    """One random notebook, what is known of its live kernel, and the edits of it."""

    def __init__(self, seed, number, folder, report):
        self.pick = random.Random(f"{seed}:{number}")
        self.writer = Writer(self.pick, number)
        self.number = number
        self.report = report
        self.work, self.store = folder / f"n{number}", folder / f"n{number}.store"
        self.slots = {name: self.writer.write(name) for name in self.writer.ids}
        self.names = {name: name for name in self.slots}
        self.order = [name for name in reversed(self.writer.ids) if "." not in name]
        self.texts = {f"x{at}.txt": str(at) for at in range(2)}
        self.live = Bindings()
        self.history = []
        self.seen = set()
        self.log = []

    # -- texts

    def rendered(self, text):
        for name in sorted(self.names, key=len, reverse=True):
            text = text.replace(f"<{name}>", self.names[name])
        return text

    def name(self, slot):
        return self.names[slot]

    def files(self):
        first, second = self.writer.modules
        found = dict(self.texts)
        for module in (first, second):
            parts = [self.rendered(slot.text) for slot in reversed(self.slots.values()) if slot.module == module]
            found[f"{module}.py"] = PRELUDE + (f"import {second}\n" if module == first else "") + "\n".join(parts)
        return found

    def prelude(self):
        first, second = self.writer.modules
        return f"{PRELUDE}import {first}, {second}\nimport {first} as mm\n"

    # -- what a kernel would have executed

    def execute(self, bindings, slot):
        item = self.slots[slot]
        text = self.rendered(item.text)
        bindings[self.name(slot)] = Executed(
            meaning(text), [self.name(name) for name in item.calls], [bindings[self.name(name)] for name in item.holds]
        )
        return text

    def execute_module(self, bindings, module):
        for item in reversed(self.slots.values()):
            if item.module == module:
                self.execute(bindings, item.id)

    def change(self, bindings, slot, text):
        bindings[self.name(slot)].changes += (text,)
        return self.rendered(text)

    # -- runs

    def run(self, kernel, bindings, cells, reload=(), *, fresh=False):
        data = [self.name(slot) for slot, kind in self.writer.kinds.items() if slot[0] == "g" or kind in {"int", "list", "dict"}]
        assets = [f"a{at}" for at in range(5)]
        answer = kernel.ask(
            notebook=f"{self.number}",
            fresh=fresh,
            work=str(self.work),
            store=str(self.store),
            cells=cells,
            reload=list(reload),
            files=self.files(),
            assets=assets,
            data=data,
        )
        for name, value in answer["data"].items():
            bindings[name].value = value
            bindings[name].changes = ()
        report = self.report
        where = (
            f"notebook {self.number}, edit {len(self.log)} ({self.log[-1] if self.log else 'first'}{', fresh' if fresh else ''})"
        )
        report.unverifiable += [f"{where}: {text}" for text in answer["unverifiable"]]
        for name in assets:
            report.steps += 1
            status = answer["statuses"][name]
            ran = status == "executed"
            report.executed += ran
            report.failed += status == "failed"
            if answer["values"][name] != answer["cold"][name]:
                report.stale.append(
                    f"{where}: {name} ({status}) is {answer['values'][name][:300]}, cold {answer['cold'][name][:300]}"
                )
            item = self.slots[name]
            state = (
                name,
                bindings.state(name),
                tuple((given, answer["cold"][given]) for given in item.parameters),
                tuple(self.texts[file] for file in item.files),
            )
            if ran and state in self.seen:
                report.needless.append(f"{where}: {name}: {answer['reasons'][name]}")
            if status != "failed":
                self.seen.add(state)

    def begin(self, kernel):
        self.run_all(kernel, self.live)

    def run_all(self, kernel, bindings, *, fresh=False):
        """Execute the whole notebook, as after a restart."""
        cells = [self.prelude(), SHOW]
        for module in reversed(self.writer.modules):
            self.execute_module(bindings, module)
            cells += [
                self.change(bindings, item.id, text)
                for item in self.slots.values()
                if item.module == module
                for text in item.changes
            ]
        for slot in self.order:
            cells.append(self.execute(bindings, slot))
            cells += [self.change(bindings, slot, text) for text in self.slots[slot].changes]
        self.run(kernel, bindings, cells, fresh=fresh)

    # -- edits

    def reached(self):
        """The slots that an asset depends on, and the assets."""
        found = {f"a{at}" for at in range(5)}
        queue = sorted(found)
        for slot in queue:
            new = {*self.slots[slot].calls, *self.slots[slot].holds} - found
            found |= new
            queue += sorted(new)
        return found

    def edit(self, kernel):
        pick = self.pick
        kind = pick.choices(list(EDITS), EDITS.values())[0]
        before = {slot: self.rendered(item.text) for slot, item in self.slots.items()}
        self.history.append((dict(self.slots), dict(self.names), list(self.order)))
        cells, again, changed = [], [], []
        slot = pick.choice(list(self.slots) if pick.random() < 0.2 else sorted(self.reached()))
        item = self.slots[slot]
        if kind == "undo":
            self.slots, self.names, self.order = (type(held)(held) for held in pick.choice(self.history[-6:]))
        elif kind == "rename" and "." not in slot and item.kind in {"helper", "class", "box", "list", "dict"}:
            self.names[slot] = f"{slot}_{pick.randrange(3)}"
        elif kind == "change" and self.name(slot) in self.live:
            mutable = [
                name
                for name, held in self.slots.items()
                if held.kind in {"list", "dict", "set", "array", "frame", "instance", "class"}
            ]
            slot = pick.choice([name for name in mutable if name in self.reached()] or mutable)
            text = self.writer.change_in_place(self.slots[slot])
            self.slots[slot] = replace(self.slots[slot], changes=(*self.slots[slot].changes[-3:], text))
            cells.append(self.change(self.live, slot, text))
        elif kind == "move":
            at = pick.randrange(len(self.order) - 1)
            one, two = self.order[at : at + 2]
            if one not in self.slots[two].holds:
                self.order[at : at + 2] = two, one
        elif kind == "file":
            self.texts[f"x{pick.randrange(2)}.txt"] = str(pick.randrange(4))
        elif kind == "again":
            again.append(slot)
        elif kind in {"value", "body", "comment"}:
            self.slots[slot] = {
                "value": self.writer.other_value,
                "body": lambda held: self.writer.write(held.id),
                "comment": self.writer.commented,
            }[kind](item)
        changed = [name for name in self.slots if self.rendered(self.slots[name].text) != before[name]] + again
        self.log.append(f"{kind} {slot}")
        self.settle(kernel, changed, cells, reload_all=kind == "reload")

    def settle(self, kernel, changed, cells, *, reload_all):
        """Execute what was edited, as somebody would who has the notebook open: mostly also what holds it."""
        pick = self.pick
        touched = {self.slots[name].module for name in changed} - {""}
        reload = [module for module in reversed(self.writer.modules) if reload_all or (module in touched and pick.random() < 0.8)]
        for module in reload:
            self.execute_module(self.live, module)
        wanted = {name for name in changed if "." not in name}
        if pick.random() < 0.6:
            for name in self.order:
                held = self.slots[name].holds
                if wanted.intersection(held) or any(self.slots[one].module in reload for one in held if "." in one):
                    wanted.add(name)
        cells = cells + [self.execute(self.live, name) for name in self.order if name in wanted]
        self.run(kernel, self.live, cells, reload)


class Kernel:
    """A process that executes cells; see `fuzz_kernel`."""

    def __init__(self, seed):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": str(seed),
            "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(HERE.parents[1])])),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "fuzz_kernel.py")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, **request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line.strip():
            raise RuntimeError(f"the kernel died over notebook {request['notebook']}")
        return json.loads(line)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def fuzz(edits, seed, *, fresh_every=7, only=None, verbose=False):
    """Edit random notebooks and return what was found."""
    report = Report()
    live, fresh = Kernel(1), Kernel(2)
    try:
        with tempfile.TemporaryDirectory(prefix="stepwell-fuzz-") as folder:
            for number in range(-(-edits // PER_NOTEBOOK)):
                if only is not None and number != only:
                    continue
                notebook = Notebook(seed, number, Path(folder), report)
                notebook.begin(live)
                for at in range(min(PER_NOTEBOOK, edits - number * PER_NOTEBOOK)):
                    found = len(report.stale), len(report.needless)
                    notebook.edit(live)
                    report.edits += 1
                    if at % fresh_every == fresh_every - 1:
                        notebook.run_all(fresh, Bindings(), fresh=True)
                    if verbose:
                        print(notebook.log[-1], *report.stale[found[0] :], *report.needless[found[1] :], flush=True)
    finally:
        live.close()
        fresh.close()
    return report


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--edits", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--only", type=int)
    options.add_argument("-v", "--verbose", action="store_true")
    given = options.parse_args()
    started = time.time()
    found = fuzz(given.edits, given.seed, only=given.only, verbose=given.verbose)
    print(*found.stale[:10], *found.needless[:10], *found.unverifiable[:10], sep="\n")
    print(f"{found} in {time.time() - started:.0f} s")
