"""Random notebooks with and without Stepwell: no value differs, and nothing runs needlessly.

    python fuzz.py [COUNT] [--seed N] [-v] [--plain]

A scenario is a list of kernels that use one folder and store, one after the other. In each, versions of one notebook are run:

1. the notebook, from the first cell to the last;
2. the same again: the steps that run are those whose line says why. Then the notebook is edited in that kernel, some cells are run in any
   order, and all are brought up to date; sometimes that twice;
3. another edit, or the first text again, in a new kernel; sometimes files that the notebook wrote are lost before.

The reference after each Run All is a plain Run All of the same cells in a new process and folder. Where a plain notebook with the same
history has other values than that, it depends on what an earlier run has left, and there is nothing to compare. What fails is made
smaller while it fails, and shown as a notebook.
"""

import argparse
import contextlib
import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from oracle import BadCaseError, Forks
from random_notebooks import Author

EXCUSED = re.compile(r"not stored|once in every kernel|has no digest|is not seen")
"""What a line says of a step that is run again although nothing was edited."""
LIMITS = re.compile(r"which something else has changed since: the file is left unchanged")
"""What a line says where values may differ by a rule: a plain cell has changed a file that an asset cell wrote, and only -f writes it again."""
USED = ("numpy", "pandas", "polars", "duckdb", "IPython.core.interactiveshell")
"""What random notebooks import: a server that imports nothing else starts sooner."""
OWN_ERRORS = re.compile(
    r"(CellError|CellValueError|CycleError|NamesReassignedError|CellNameError|InvalidDefinitionError|ValueUnavailableError)\b"
)
"""Errors of Stepwell that cells may raise which are run out of their order."""


@dataclass(frozen=True)
class Part:
    """Cells that are run in a kernel."""

    cells: tuple
    whole: bool = True
    """All cells of the notebook in their order: afterwards the values are compared."""
    unedited: bool = False
    """Nothing was edited since these were run: steps that run must say why."""


@dataclass(frozen=True)
class Scenario:
    """Kernels, each with its parts and the files that are lost before it; and the values that are compared."""

    kernels: tuple
    watch: tuple


def write(seed):
    """Return the scenario of a seed."""
    author = Author(seed)
    chance = author.pick.random
    first = author.notebook()
    watch = tuple(author.watched())
    second = author.edit(first)
    while chance() < 0.35:
        second = author.edit(second)
    changed = [cell for cell in second if cell not in first]
    some = author.pick.sample(second, k=min(len(second), author.pick.randrange(4)))
    some = [*some, *[cell for cell in changed if chance() < 0.7 and cell not in some]]
    author.pick.shuffle(some)
    parts = [Part(first, unedited=True), Part(tuple(some), whole=False), Part(second)]
    if chance() < 0.3:
        parts.append(Part(second, unedited=True))
    back = chance() < 0.2
    third = first if back else author.edit(second)
    files = [name for name, kind in author.known.items() if kind == "file" and chance() < 0.3]
    return Scenario((((Part(first),), ()), (tuple(parts), ()), ((Part(third, unedited=back),), tuple(files))), watch)


def watching(watch):
    """Return a cell that prints values."""
    lines = [f"try: print('@{at}', repr({each}))\nexcept Exception: print('@{at} an error')" for at, each in enumerate(watch)]
    return "\n".join(lines)


def values_in(text):
    return dict(re.findall(r"^@(\d+) (.*)$", text, re.MULTILINE))


@dataclass
class Failure:
    """What is wrong with a scenario."""

    kind: str
    text: str
    kernel: int
    watch: tuple = ()
    """Expressions whose values differ."""


class Fuzzer:
    """Runs scenarios.

    Parameters
    ----------
    runner
        What runs notebooks: `Forks`.
    folder
        Where their folders are made.
    """

    def __init__(self, runner, folder, *, verbose=False):
        self.runner = runner
        self.folder = Path(folder)
        self.verbose = verbose
        self.number = 0
        self.references = {}
        self.executed = self.reused = self.invalid = self.dependent = self.limited = 0

    # -- running notebooks

    def run(self, folder, cells, *, with_stepwell, number=0):
        folder.mkdir(parents=True, exist_ok=True)
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        own = {
            "HOME": str(home),
            "STEPWELL_KEY_FILE": str(home / "key"),
            "JPY_SESSION_NAME": str(folder / "work.ipynb"),
        }
        request = {"folder": str(folder), "environment": own, "cells": cells, "watch": []}
        return self.runner.run(request, with_stepwell=with_stepwell, number=number)["cells"]

    def reference(self, cells, watch):
        """Return the values after a plain Run All; raise BadCaseError if a cell fails."""
        texts = [(cell.id, cell.plain) for cell in cells]
        key = json.dumps([texts, watch])
        if key not in self.references:
            self.number += 1
            folder = self.folder / f"plain{self.number}"
            ran = self.run(folder, [*texts, (None, watching(watch))], with_stepwell=False)
            shutil.rmtree(folder)
            errors = [f"{name}: {error}" for (name, _), (_, error) in zip(texts, ran, strict=False) if error]
            self.references[key] = errors or values_in(ran[-1][0])
        found = self.references[key]
        if isinstance(found, list):
            raise BadCaseError("; ".join(found))
        return found

    def history(self, scenario, upto):
        """Return what plain kernels print and raise that are used in the same way, in one folder."""
        self.number += 1
        folder = self.folder / f"history{self.number}"
        found = []
        for parts, lost in scenario.kernels[: upto + 1]:
            cells = cells_of(parts, scenario.watch, lambda cell: cell.plain)
            for name in lost:
                (folder / name).unlink(missing_ok=True)
            found = self.run(folder, cells, with_stepwell=False)
        shutil.rmtree(folder)
        return found

    # -- judging

    def valid(self, scenario):
        """Return the scenario as far as the plain notebook runs."""
        kernels = []
        for parts, lost in scenario.kernels:
            kept = []
            for part in parts:
                try:
                    if part.whole:
                        self.reference(part.cells, scenario.watch)
                except BadCaseError:
                    if not kernels:
                        raise
                    kernels += [(tuple(kept), lost)] if any(each.whole for each in kept) else []
                    return replace(scenario, kernels=tuple(kernels))
                kept.append(part)
            kernels.append((tuple(kept), lost))
        return replace(scenario, kernels=tuple(kernels))

    def failure(self, scenario):
        """Return what is wrong with a scenario; None if it is right."""
        self.number += 1
        folder = self.folder / f"scenario{self.number}"
        self.said = ""
        try:
            for number, (parts, lost) in enumerate(scenario.kernels):
                for name in lost:
                    (folder / name).unlink(missing_ok=True)
                cells = [("load", "%load_ext stepwell"), *cells_of(parts, scenario.watch, lambda cell: cell.text)]
                ran = self.run(folder, cells, with_stepwell=True, number=number)[1:]
                if self.verbose:
                    print(f"--- kernel {number + 1}")
                    print("\n".join(f"[{name}] {text}{error}" for (name, _), (text, error) in zip(cells[1:], ran, strict=True)))
                self.said += "\n".join(text for text, _ in ran)
                found = self.judge(scenario, number, ran)
                if found is not None:
                    return found
        except RuntimeError as error:
            return Failure("ended", str(error), number)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def judge(self, scenario, number, ran):
        """Return what is wrong with a kernel."""
        at = 0
        history = None
        for part in scenario.kernels[number][0]:
            said = ran[at : at + len(part.cells)]
            errors = {cell.id: error for cell, (_, error) in zip(part.cells, said, strict=True) if error}
            if not part.whole:
                # Cells that are run out of order may fail: as the plain cells do, or because Stepwell says so.
                errors = {name: error for name, error in errors.items() if not OWN_ERRORS.match(error)}
                if errors:
                    history = history or self.history(scenario, number)
                    plain = {cell.id: error for cell, (_, error) in zip(part.cells, history[at:], strict=False)}
                    # What a cell finds there depends on what others have left.
                    known = {error.partition(":")[0] for error in plain.values()} | {
                        "NameError",
                        "UndefinedVariableError",
                        "KeyError",
                        "IndexError",
                        "FileNotFoundError",
                        "AttributeError",
                    }
                    errors = {name: error for name, error in errors.items() if error.partition(":")[0] not in known}
            # In a kernel in which cells have run before, a step that must run because of one of them may stop and say which cells to run.
            stops = at and all(error.startswith("NamesReassignedError") for error in errors.values())
            if errors and (stops or LIMITS.search(self.said)):
                self.limited += 1
                return None
            if errors:
                return Failure("error", "\n".join(f"{name}: {error}" for name, error in errors.items()), number)
            at += len(part.cells)
            lines = [line for text, _ in said for line in text.splitlines()]
            executed = [line for line in lines if re.match(r"\S.*: executed in ", line)]
            self.executed += len(executed)
            self.reused += sum(": reused" in line for line in lines)
            if not part.whole:
                continue
            values, expected = values_in(ran[at][0]), self.reference(part.cells, scenario.watch)
            differing = [place for place in expected if values.get(place) != expected[place]]
            if differing:
                history = history or self.history(scenario, number)
                plain = values_in(history[at][0])
                self.dependent += any(plain.get(place) != expected[place] for place in differing)
                differing = [place for place in differing if plain.get(place) == expected[place]]
            if differing and LIMITS.search(self.said):
                self.limited += 1
                return None
            if differing:
                watch = [scenario.watch[int(place)] for place in differing]
                notes = [
                    f"{each}: plain {expected[place]}, here {values.get(place)}"
                    for each, place in zip(watch, differing, strict=True)
                ]
                return Failure("differs", f"kernel {number + 1}: " + "\n".join(notes), number, tuple(watch))
            at += 1
            if part.unedited and self.was_run(scenario, number, part):
                # A multi-asset is told by its first key when it runs again, and by all of them when it has run.
                again = {line.partition(":")[0] for line in lines if "was not stored" in line}
                needless = [line for line in executed if not EXCUSED.search(line) and re.split("[ :]", line)[0] not in again]
                if needless:
                    return Failure("needless", f"kernel {number + 1}: " + "\n".join(needless), number)
        return None

    def was_run(self, scenario, number, part):
        """Return whether the cells of a part were run before it."""
        own = scenario.kernels[number][0]
        before = [each for parts, _ in scenario.kernels[:number] for each in parts] + list(own[: own.index(part)])
        return any(each.whole and each.cells == part.cells for each in before)

    def check(self, seed):
        """Return nothing if the notebook of a seed is right, otherwise a text with the smallest one that fails alike."""
        scenario = write(seed)
        try:
            scenario = self.valid(scenario)
        except BadCaseError as error:
            self.invalid += 1
            if self.verbose:
                print(error)
            return None
        found = self.failure(scenario)
        self.references.clear()
        if found is None:
            return None
        self.verbose, before = False, self.verbose
        smaller, found = self.shrink(scenario, found)
        self.verbose = before
        if before:
            self.failure(smaller)
        return f"seed {seed}: {found.kind}\n{found.text}\n{show(smaller)}"

    # -- making it smaller

    def shrink(self, scenario, found, budget=200):
        """Return a smaller scenario that fails in the same way."""
        self.left = budget

        def fails(smaller):
            nonlocal scenario, found
            if self.left <= 0:
                return False
            self.left -= 1
            if draws_unseeded(smaller):
                return False
            try:
                if self.valid(smaller) != smaller:
                    return False
                now = self.failure(smaller)
            except BadCaseError:
                return False
            if now is None or now.kind != found.kind:
                return False
            if now.kind == "error" and OWN_ERRORS.findall(now.text) != OWN_ERRORS.findall(found.text):
                return False
            scenario, found = smaller, now
            return True

        fails(replace(scenario, kernels=scenario.kernels[: found.kernel + 1], watch=found.watch[:1] or scenario.watch[:1]))
        for _ in range(2):
            before = scenario
            for at in reversed(range(len(scenario.kernels))):
                fails(replace(scenario, kernels=scenario.kernels[:at] + scenario.kernels[at + 1 :]))
            for kernel in reversed(range(len(scenario.kernels))):
                for at in reversed(range(len(scenario.kernels[kernel][0]))):
                    parts, lost = scenario.kernels[kernel]
                    fails(with_kernel(scenario, kernel, (parts[:at] + parts[at + 1 :], lost)))
                parts, lost = scenario.kernels[kernel]
                if lost:
                    fails(with_kernel(scenario, kernel, (parts, ())))
            names = list(dict.fromkeys(cell.id for cell in all_cells(scenario)))
            size = max(len(names) // 2, 1)
            while size:
                for at in range(0, len(names), size):
                    gone = set(names[at : at + size])
                    if any(cell.id in gone for cell in all_cells(scenario)):
                        fails(each(scenario, lambda cell, gone=gone: None if cell.id in gone else cell))
                size //= 2
            for name, line in dict.fromkeys((cell.id, line) for cell in all_cells(scenario) for line in cell.lines):
                if any(cell.id == name and line in cell.lines for cell in all_cells(scenario)):
                    fails(
                        each(
                            scenario,
                            lambda cell, name=name, line=line: without(cell, line) if cell.id == name else cell,
                        )
                    )
            for name in names:
                if any(cell.id == name and cell.head for cell in all_cells(scenario)):
                    fails(each(scenario, lambda cell, name=name: replace(cell, head="") if cell.id == name else cell))
            # A cell as in the version before it.
            for name in names:
                texts = list(dict.fromkeys(cell for cell in all_cells(scenario) if cell.id == name))
                if len(texts) > 1:
                    fails(each(scenario, lambda cell, name=name, texts=texts: texts[0] if cell.id == name else cell))
            if scenario == before:
                break
        return scenario, found


def cells_of(parts, watch, text_of):
    """Return the ids and texts of the cells of a kernel, with a cell that shows the values after each Run All."""
    cells = []
    for part in parts:
        cells += [(cell.id, text_of(cell)) for cell in part.cells]
        if part.whole:
            cells.append((None, watching(watch)))
    return cells


def all_cells(scenario):
    return [cell for parts, _ in scenario.kernels for part in parts for cell in part.cells]


def with_kernel(scenario, number, kernel):
    kernels = list(scenario.kernels)
    kernels[number] = kernel
    return replace(scenario, kernels=tuple(kernels))


def without(cell, line):
    kept = tuple(one for one in cell.lines if one != line)
    return replace(cell, lines=kept) if kept else None


def each(scenario, change):
    """Return a scenario with each cell changed, or left out where the change is None."""
    kernels = tuple(
        (
            tuple(
                replace(part, cells=tuple(made for cell in part.cells if (made := change(cell)) is not None)) for part in parts
            ),
            lost,
        )
        for parts, lost in scenario.kernels
    )
    return replace(scenario, kernels=kernels)


def draws_unseeded(scenario):
    """Return whether the cells of a scenario draw random numbers without the cell that seeds them."""
    texts = [cell.text for parts, _ in scenario.kernels for part in parts if part.whole for cell in part.cells]
    return any(
        any(re.search(drawing, text) for text in texts) and not any(re.search(seeding, text) for text in texts)
        for drawing, seeding in (
            (r"np\.random\.(randint|permutation)", r"np\.random\.seed\("),
            (r"(?<!np\.)\brandom\.(randrange|sample)", r"(?<!np\.)\brandom\.seed\("),
        )
    )


def show(scenario):
    """Return a scenario as text: the first version whole, of later ones the cells that differ."""
    parts, before = [], {}
    for number, (versions, lost) in enumerate(scenario.kernels):
        parts.append(f"=== kernel {number + 1}" + (f", without {', '.join(lost)}" if lost else ""))
        for part in versions:
            if not part.whole:
                parts.append(f"--- only {', '.join(cell.id for cell in part.cells)}:")
            else:
                parts.append(
                    f"--- Run All of {', '.join(cell.id for cell in part.cells)}{' (unedited)' if part.unedited else ''}:"
                )
            parts += [f"[{cell.id}]\n{cell.text}" for cell in part.cells if before.get(cell.id) != cell.text]
            before.update((cell.id, cell.text) for cell in part.cells)
    parts.append(f"=== compared: {', '.join(scenario.watch)}")
    return "\n".join(parts)


def fuzz(runner, folder, seeds, *, stop=3, verbose=False):
    """Run the notebooks of seeds; return the texts of the first ones that fail, and the fuzzer with its counts."""
    fuzzer = Fuzzer(runner, folder, verbose=verbose)
    failures = []
    for seed in seeds:
        failed = fuzzer.check(seed)
        if failed:
            failures.append(failed)
            if len(failures) == stop:
                break
    return failures, fuzzer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=int, default=5, help="how many that fail are shown")
    parser.add_argument("--plain", action="store_true", help="only show the notebook of the seed")
    parser.add_argument("-v", action="store_true", help="show what Stepwell printed")
    given = parser.parse_args()
    if given.plain:
        print(show(write(given.seed)))
        return 0
    count = given.count or (1 if "--seed" in sys.argv else 100)
    failed = 0
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Forks(folder, USED)) as runner:
        fuzzer = Fuzzer(runner, folder, verbose=given.v)
        for seed in range(given.seed, given.seed + count):
            text = fuzzer.check(seed)
            if text:
                print(text, flush=True)
                failed += 1
                if failed == given.stop:
                    break
    print(
        f"{failed} failed of {seed - given.seed + 1}; {fuzzer.executed} steps executed, {fuzzer.reused} reused; "
        f"{fuzzer.invalid} were no notebooks, {fuzzer.dependent} depend on earlier runs, "
        f"{fuzzer.limited} differ by a rule"
    )
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
