"""Compare a notebook with Stepwell to the same notebook without it: every watched value must be equal, in every run.

    python oracle.py [--only ID,...] [--real] [-v]

A `Case` is a list of runs, and a run is a list of cells. Each run has a new kernel, as after a restart. The cells are run twice:

* plain: without the extension, and without the first line of asset cells, each run in a folder of its own;
* with Stepwell: all runs of the case in one folder, so that later runs find what earlier runs stored.

A cell is a text, or a pair of cell id and text where a run executes the same cell several times (unchanged or edited). The
reference of such a run is a plain Run All of the final cells, in the order in which they were first run; with `sequence=True`
it is the same sequence of plain cells.

Verdicts: right, differs, needless, noisy, error. An error of a cell is right if the plain cell ends with the same one.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ASSET_LINES = ("%%asset", "%%multi_asset")


@dataclass(frozen=True)
class Case:
    """A notebook that is run several times, and what must hold.

    Parameters
    ----------
    id
        Its name.
    runs
        The runs; each is a list of cells.
    watch
        Expressions whose values are compared after each run.
    reused
        Keys that the last run must not execute.
    ran
        Keys that the last run must execute.
    never
        A regular expression that no output of Stepwell may match.
    says
        A regular expression that the last run's output must match.
    files
        Texts of files, written before each run; or a list with one dict per run.
    by_hand
        Texts of files that are written before the last run with Stepwell only, as a user does who edits what a cell wrote.
    remove
        Files and folders that are removed before the last run.
    expect
        Values of the last run that differ from the plain notebook's by a rule: expression to repr.
    sequence
        The reference executes the same sequence of cells.
    fails
        Cells of this case may raise an error.
    """

    id: str
    runs: list
    watch: list
    reused: tuple = ()
    ran: tuple = ()
    never: str = ""
    says: str = ""
    files: object = field(default_factory=dict)
    by_hand: dict = field(default_factory=dict)
    remove: tuple = ()
    expect: dict = field(default_factory=dict)
    sequence: bool = False
    fails: bool = False


class BadCaseError(Exception):
    """The plain notebook itself does not work."""


def plain(cell):
    """Return the text of a cell without the first line of an asset cell."""
    first, _, rest = cell.partition("\n")
    return rest if first.startswith(ASSET_LINES) else cell


def numbered(cells):
    """Return pairs of cell id and text."""
    return [cell if isinstance(cell, tuple) else (f"cell-{at}", cell) for at, cell in enumerate(cells)]


def reference_cells(cells, sequence):
    """Return the plain cells whose values a run must give."""
    if not sequence:
        cells = list(dict(cells).items())
    return [(name, plain(text)) for name, text in cells]


class Forks:
    """Servers that fork a child per run; each is started at its first use.

    Parameters
    ----------
    folder
        Where their home is.
    imported
        Modules that they import before; by default those that the cases use.
    """

    def __init__(self, folder, imported=()):
        self.folder = Path(folder)
        self.imported = imported
        self.servers = {}

    def run(self, request, *, with_stepwell, number=0):
        # A new kernel has another hash seed: the runs of a case alternate between two servers.
        seed = number % 2 if with_stepwell else 0
        if seed not in self.servers:
            self.servers[seed] = self.start(seed)
        lines = self.servers[seed][1][with_stepwell]
        lines.write(json.dumps(request) + "\n")
        lines.flush()
        answer = json.loads(lines.readline() or '{"failed": "the server ended"}')
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        return answer

    def start(self, seed):
        home = self.folder / f"home{seed}"
        home.mkdir(parents=True, exist_ok=True)
        # matplotlib takes seconds to find the fonts of a machine, and keeps what it found.
        with contextlib.suppress(OSError):
            shutil.copytree(Path.home() / ".cache" / "matplotlib", home / ".cache" / "matplotlib")
        pairs = [socket.socketpair() for _ in range(2)]
        theirs = [pair[1].fileno() for pair in pairs]
        server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), *map(str, theirs), *self.imported],
            env={**environment(home), "PYTHONHASHSEED": str(seed + 1), "PYTHONPATH": str(ROOT)},
            pass_fds=theirs,
        )
        lines = []
        for ours, other in pairs:
            other.close()
            lines.append(ours.makefile("rw"))
            ours.close()
        for line in lines:
            if line.readline() != "ready\n":
                raise RuntimeError("the server did not start")
        return server, lines

    def close(self):
        for server, lines in self.servers.values():
            for line in lines:
                line.close()
            server.wait(timeout=60)


class Kernels:
    """Real kernels, one per run: slow, and the measure of what `Forks` gives."""

    def run(self, request, *, with_stepwell, number=0):
        from jupyter_client.manager import KernelManager

        manager = KernelManager(kernel_name="python3")
        manager.kernel_spec.argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        home = {**environment(request["environment"]["HOME"]), **request["environment"], "PYTHONPATH": str(ROOT)}
        manager.start_kernel(cwd=request["folder"], env=home, stderr=subprocess.DEVNULL)
        client = manager.client()
        try:
            client.start_channels()
            client.wait_for_ready(timeout=120)
            cells = [self.cell(client, text, name) for name, text in request["cells"]]
            values = []
            for watch in request["watch"]:
                text, error = self.cell(client, f"print(repr({watch}), end='')")
                values.append(error or text)
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
        return {"cells": cells, "values": values}

    def cell(self, client, text, name=None):
        content = {
            "code": text,
            "silent": False,
            "store_history": True,
            "user_expressions": {},
            "allow_stdin": False,
            "stop_on_error": False,
        }
        message = client.session.msg("execute_request", content, metadata={"cellId": name} if name else {})
        client.shell_channel.send(message)
        parts, error = [], ""
        while True:
            got = client.get_iopub_msg(timeout=120)
            if got["parent_header"].get("msg_id") != message["header"]["msg_id"]:
                continue
            kind, content = got["msg_type"], got["content"]
            if kind == "stream":
                parts.append(content["text"])
            elif kind in {"execute_result", "display_data"}:
                parts.append(content["data"].get("text/plain", "") + "\n")
            elif kind == "error":
                error = f"{content['ename']}: {content['evalue']}"
            elif kind == "status" and content["execution_state"] == "idle":
                return "".join(parts), error

    def close(self):
        pass


def environment(home):
    """Return the environment of a process that runs notebooks."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("STEPWELL", "JPY_", "PYTHON", "MPL"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), "1")
    return {
        **kept,
        **threads,
        "HOME": str(home),
        "IPYTHONDIR": str(Path(home) / "ipython"),
        "MPLBACKEND": "agg",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def write(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class Comparison:
    """One case, run by run.

    Parameters
    ----------
    runner
        `Forks` or `Kernels`.
    case
        The case.
    folder
        An empty folder for everything that the case writes.
    """

    def __init__(self, runner, case, folder):
        self.runner = runner
        self.case = case
        self.folder = Path(folder)
        self.stored = self.folder / "stored"
        self.home = self.folder / "home"
        for made in (self.stored, self.home):
            made.mkdir(parents=True)
        self.found = {}
        self.outputs = []
        self.references = {}

    def judge(self):
        """Return the verdict and its notes."""
        for number in range(len(self.case.runs)):
            self.run(number)
        for verdict in ("differs", "error", "needless", "noisy"):
            if verdict in self.found:
                return verdict, [note for notes in self.found.values() for note in notes]
        return "right", []

    def note(self, verdict, text):
        self.found.setdefault(verdict, []).append(text)

    def reference(self, number, cells, files):
        chosen = reference_cells(cells, self.case.sequence)
        same = json.dumps([chosen, files])
        if same not in self.references:
            self.references[same] = self.run_plain(number, chosen, files)
        return self.references[same]

    def run_plain(self, number, chosen, files):
        fresh = self.folder / f"plain{number}"
        fresh.mkdir()
        write(fresh, files)
        answer = self.runner.run(self.request(fresh, chosen), with_stepwell=False)
        errors = {name: error for (name, _), (_, error) in zip(chosen, answer["cells"], strict=True) if error}
        if errors and not self.case.fails:
            raise BadCaseError(f"{self.case.id}: the plain notebook fails: {errors}")
        return answer["values"], errors

    def request(self, folder, cells):
        own = {
            "HOME": str(self.home),
            "STEPWELL_KEY_FILE": str(self.home / "key"),
            "JPY_SESSION_NAME": str(folder / "work.ipynb"),
        }
        return {"folder": str(folder), "environment": own, "cells": cells, "watch": self.case.watch}

    def run(self, number):
        case = self.case
        last = number == len(case.runs) - 1
        files = case.files[number] if isinstance(case.files, list) else case.files
        cells = numbered(case.runs[number])
        expected, failing = self.reference(number, cells, files)
        write(self.stored, files)
        if last:
            for name in case.remove:
                remove(self.stored / name)
            write(self.stored, case.by_hand)
        request = self.request(self.stored, [("load", "%load_ext stepwell"), *cells])
        answer = self.runner.run(request, with_stepwell=True, number=number)
        text = "\n".join(printed for printed, _ in answer["cells"])
        self.outputs.append(text)
        said = f"run {number + 1}: "
        for watch, plain_value, value in zip(case.watch, expected, answer["values"], strict=True):
            wanted = case.expect.get(watch, plain_value) if last else plain_value
            if value != wanted:
                self.note("differs", f"{said}{watch}: plain {wanted}, here {value}")
        for (name, _), (_, error) in zip(cells, answer["cells"][1:], strict=True):
            if error and error.split(":")[0] != failing.get(name, "").split(":")[0]:
                self.note("error", f"{said}{name}: {error}")
        if case.never and (met := re.search(case.never, text)):
            self.note("noisy", f"{said}says {met.group()!r}")
        if last:
            again = [key for key in case.reused if executed(key, text)]
            if again:
                self.note("needless", f"executed again: {', '.join(again)}")
            missed = [key for key in case.ran if not executed(key, text)]
            if missed:
                self.note("differs", f"not executed: {', '.join(missed)}")
            if case.says and not re.search(case.says, text):
                self.note("differs", f"does not say {case.says!r}")


def executed(key, text):
    """Whether a line of a run says that a key's step was executed."""
    return re.search(rf"^{re.escape(key)}: executed", text, re.MULTILINE) is not None


def compare(runner, case, folder):
    """Return the verdict of a case and its notes."""
    try:
        return Comparison(runner, case, folder).judge()
    except RuntimeError as error:
        return "error", [str(error)]


def main():
    import all_cases

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="ids, or parts of ids, separated by commas")
    parser.add_argument("--part", default="0/1", help="the first of every N cases: 0/N")
    parser.add_argument("--real", action="store_true", help="real kernels")
    parser.add_argument("-v", action="store_true", help="show what Stepwell printed")
    given = parser.parse_args()
    wanted = [part for part in given.only.split(",") if part]
    cases = [case for case in all_cases.CASES if not wanted or any(part in case.id for part in wanted)]
    first, step = map(int, given.part.split("/"))
    cases = cases[first::step]
    right = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(Kernels() if given.real else Forks(folder)) as runner,
    ):
        for case in cases:
            comparison = Comparison(runner, case, Path(folder) / case.id)
            try:
                verdict, notes = comparison.judge()
            except (RuntimeError, BadCaseError) as error:
                verdict, notes = "error", [str(error)]
            right += verdict == "right"
            if verdict != "right" or given.v:
                line = f"{case.id:<38} {verdict:<9} {' | '.join(' '.join(note.split()) for note in notes)[:400]}"
                print(line, flush=True)
            if given.v:
                print("\n".join(f"--- run {at + 1}\n{text}" for at, text in enumerate(comparison.outputs)))
    print(f"{right} of {len(cases)} right")
    return right != len(cases)


if __name__ == "__main__":
    sys.exit(main())
