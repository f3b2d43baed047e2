"""Random notebooks with and without Stepwell: no value differs, and nothing runs needlessly.

    python fuzz.py [COUNT] [--seed N] [--one N]

A scenario is a list of kernels; in each, versions of one notebook are run from the first cell to the last:

1. the notebook, in a new kernel; 2. the same again: the steps that run are those whose line says why; 3. edited; 4. as
before, and then edited in the same kernel, once or twice. The reference of each kernel is a plain Run All of its last version,
in a new process and folder. What fails is made smaller while it fails, and shown as a notebook.
"""

import argparse
import contextlib
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from oracle import BadCaseError, Case, Comparison, Forks
from random_notebooks import Author

EXCUSED = re.compile(
    r"not stored|once in (each|every) kernel|unverifiable|cannot be (stored|restored|digested|verified)|with your |draws from|not restored"
)
"""What a line says of a step that is run in a second run of an unedited notebook."""


@dataclass(frozen=True)
class Scenario:
    """Kernels, each a list of versions of the notebook; and the values that are compared."""

    kernels: tuple
    watch: tuple
    unedited: int = 1
    """The number of the kernel whose notebook is that of the kernel before."""

    def case(self, upto=None):
        runs = [[(cell.id, cell.text) for version in kernel for cell in version] for kernel in self.kernels[:upto]]
        return Case("random", runs, list(self.watch))


def write(seed):
    """Return the scenario of a seed."""
    author = Author(seed)
    first = author.notebook()
    watch = tuple(author.watched())
    edits = [first]
    for _ in range(3):
        cells = author.edit(edits[-1])
        edits.append(author.edit(cells) if author.pick.random() < 0.3 else cells)
    last = (edits[1], edits[2]) if author.pick.random() < 0.5 else (edits[1], edits[2], edits[3])
    return Scenario(((first,), (first,), (edits[1],), last), watch)


class Fuzzer:
    """Runs scenarios.

    Parameters
    ----------
    runner
        What runs notebooks: `Forks`.
    folder
        Where their folders are made.
    """

    def __init__(self, runner, folder):
        self.runner = runner
        self.folder = Path(folder)
        self.number = 0
        self.executed = 0
        self.invalid = 0

    def failure(self, scenario):
        """Return what is wrong with a scenario: its kind and a text; nothing if it is right; raise if it is no notebook."""
        self.number += 1
        folder = self.folder / f"scenario{self.number}"
        comparison = Comparison(self.runner, scenario.case(), folder)
        try:
            for number in range(len(scenario.kernels)):
                comparison.run(number)
                if comparison.found:
                    kind = next(iter(comparison.found))
                    return kind, "\n".join(note for notes in comparison.found.values() for note in notes)
                text = comparison.outputs[-1]
                ran = re.findall(r"^\S+: executed.*$", text, re.MULTILINE)
                self.executed += len(ran)
                if number == scenario.unedited:
                    needless = [line for line in ran if not EXCUSED.search(line)]
                    if needless:
                        return "needless", "\n".join(needless)
        except RuntimeError as error:
            return "ended", str(error)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return None

    def check(self, seed):
        """Return nothing if the notebook of a seed is right, otherwise a text with the smallest one that fails alike."""
        scenario = write(seed)
        try:
            found = self.failure(scenario)
        except BadCaseError:
            # An edit took away what a cell needs: only the unedited notebook is tried.
            scenario = replace(scenario, kernels=scenario.kernels[:2])
            try:
                found = self.failure(scenario)
            except BadCaseError:
                self.invalid += 1
                return None
        if found is None:
            return None
        kind, text = found
        smaller, text = self.shrink(scenario, kind, text)
        return f"seed {seed}: {kind}\n{text}\n{show(smaller)}"

    def shrink(self, scenario, kind, text, budget=250):
        """Return the smallest scenario that fails in the same way."""
        going = True
        while going and budget > 0:
            going = False
            for smaller in smaller_ones(scenario):
                budget -= 1
                if budget <= 0:
                    break
                try:
                    found = self.failure(smaller)
                except BadCaseError:
                    continue
                if found is not None and found[0] == kind:
                    scenario, text, going = smaller, found[1], True
                    break
        return scenario, text


def smaller_ones(scenario):
    """Yield scenarios with something less."""
    kernels, watch = scenario.kernels, scenario.watch
    for at in reversed(range(len(kernels))):
        if len(kernels) > 1 and not (at <= scenario.unedited < len(kernels) and at != len(kernels) - 1):
            yield replace(scenario, kernels=kernels[:at] + kernels[at + 1 :])
    for at in range(len(kernels)):
        # The needless check needs the first two; other kernels may go while a value differs.
        if len(kernels) > 1 and scenario.unedited >= 0:
            yield replace(scenario, kernels=kernels[:at] + kernels[at + 1 :], unedited=-1)
    for at, versions in enumerate(kernels):
        for number in range(len(versions)):
            if len(versions) > 1:
                fewer = versions[:number] + versions[number + 1 :]
                yield replace(scenario, kernels=(*kernels[:at], fewer, *kernels[at + 1 :]))
    cells = {cell.id for versions in kernels for version in versions for cell in version}
    for name in sorted(cells, reverse=True):
        yield each(scenario, lambda cell, name=name: None if cell.id == name else cell)
    for at in range(len(watch)):
        if len(watch) > 1:
            yield replace(scenario, watch=watch[:at] + watch[at + 1 :])
    lines = {(cell.id, line) for versions in kernels for version in versions for cell in version for line in cell.lines}
    for name, line in sorted(lines):
        yield each(scenario, lambda cell, name=name, line=line: without(cell, line) if cell.id == name else cell)
    for name in sorted(cells):
        if any(cell.id == name and cell.head for versions in kernels for version in versions for cell in version):
            yield each(scenario, lambda cell, name=name: replace(cell, head="") if cell.id == name else cell)


def without(cell, line):
    kept = tuple(one for one in cell.lines if one != line)
    return replace(cell, lines=kept) if kept else None


def each(scenario, change):
    """Return a scenario with each cell changed, or left out where the change is None."""
    kernels = tuple(
        tuple(tuple(made for cell in version if (made := change(cell)) is not None) for version in versions)
        for versions in scenario.kernels
    )
    return replace(scenario, kernels=kernels)


def show(scenario):
    """Return a scenario as text: the first version whole, of later ones the cells that differ."""
    parts, before = [], {}
    for number, versions in enumerate(scenario.kernels):
        for at, version in enumerate(versions):
            parts.append(f"=== kernel {number + 1}" + (f", version {at + 1}" if len(versions) > 1 else ""))
            parts += [f"[{cell.id}]\n{cell.text}" for cell in version if before.get(cell.id) != cell.text] or [
                "(unedited)"
            ]
            before = {cell.id: cell.text for cell in version}
    parts.append(f"=== compared: {', '.join(scenario.watch)}")
    return "\n".join(parts)


def fuzz(runner, folder, seeds, stop=5):
    """Run the notebooks of seeds; return the texts of the first ones that fail, and the fuzzer with its counts."""
    fuzzer = Fuzzer(runner, folder)
    failures = []
    for seed in seeds:
        failed = fuzzer.check(seed)
        if failed:
            failures.append(failed)
            print(failed, flush=True)
            if len(failures) == stop:
                break
    return failures, fuzzer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stop", type=int, default=5)
    parser.add_argument("--plain", action="store_true", help="only show the notebook of the seed")
    given = parser.parse_args()
    if given.plain:
        print(show(write(given.seed)))
        return 0
    with tempfile.TemporaryDirectory() as folder, contextlib.closing(Forks(folder)) as runner:
        failures, fuzzer = fuzz(runner, folder, range(given.seed, given.seed + given.count), given.stop)
    print("\n\n".join(failures))
    print(
        f"{len(failures)} failed; {fuzzer.executed} steps executed; {fuzzer.invalid} of {given.count} were no notebooks"
    )
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())
