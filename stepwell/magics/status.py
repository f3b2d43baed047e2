"""``%stepwell COMMAND``: looking into the session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from IPython.core.error import UsageError

from stepwell.kernel_runtime.errors import unknown_key
from stepwell.kernel_runtime.records.keys import listed
from stepwell.kernel_runtime.text import duration, in_one_line, size_text
from stepwell.magics import sharing_commands, size_commands, time_commands
from stepwell.magics.cell_inputs import is_inner
from stepwell.magics.doctor import run_doctor
from stepwell.magics.face import Face
from stepwell.magics.lines import moment, run_line, say


def print_state(face: Face, names: Iterable[str]) -> None:
    """Say in what state assets are: ``%asset clean``."""
    for name in names:
        say(str(face.session.why(name)))
        say_changed_since(face, name)


def say_changed_since(face: Face, key: str) -> None:
    """Say what other cells have changed of what a step read, if they have."""
    again = face.timeline.later_changes_text(key)
    if again:
        say(f"  {'names reassigned' if face.timeline.names_reassigned(key) else 'changed by other cells'}: {again}")


def say_steps(face: Face, result: Any) -> None:
    """Say what a run of single steps did: one line for each step."""
    for step in result.steps:
        face.say(run_line(step.key, [step]))


def say_result(face: Face, result: Any) -> None:
    """Say what a run did: one line for each asset that was asked for."""
    targets = [
        key
        for key in result.run.targets
        if any(step.key == key or step.key.startswith(key + ".") for step in result.steps)
    ]
    said: set[str] = set()
    for key in targets:
        steps = [step for step in result.steps if step.key == key or step.key.startswith(key + ".")]
        said |= {step.key for step in steps}
        face.say(run_line(key, steps))
    for step in result.steps:
        if step.key not in said and step.status != "reused":
            face.say(run_line(step.key, [step]))


def _status(face: Face, words: Sequence[str]) -> None:
    if "--sizes" in words:
        size_commands.say_sizes(face)
        _store_line(face)
        return
    lineage = face.session.lineage()
    chosen = [node for node in lineage.nodes if not words or node.key in words or node.parent in words]
    if not lineage.nodes:
        stored = face.session.store.keys()
        shown = f"; stored are {listed(stored)}: %stepwell load KEY" if stored else ""
        say(f"nothing is registered yet{shown}")
    width = max((len(node.key) for node in chosen), default=0)
    for node in chosen:
        facts = [node.state or node.kind]
        if node.error:
            facts.append(node.error.splitlines()[0])
        elif node.reason:
            facts.append(node.reason)
        if node.summary:
            facts.append(node.summary)
        if node.seconds is not None:
            facts.append(duration(node.seconds))
        if node.created is not None:
            facts.append(moment(node.created))
        say(in_one_line(f"{node.key.ljust(width)}  {' · '.join(facts)}"))
    _store_line(face)


def _store_line(face: Face) -> None:
    sizes = face.session.store.sizes()
    say(
        f"store: {face.session.store.directory} · {sizes['materializations']:,} materializations · {size_text(sizes['object_bytes'] + sizes['catalog_bytes'])}"
    )


def _runs(face: Face, words: Sequence[str]) -> None:
    if words and not words[0].isdigit():
        raise UsageError("%stepwell runs N: how many")
    found = face.session.store.runs(limit=int(words[0]) if words else 10)
    if not found:
        say("no runs yet")
    for run in found:
        took = f" · {duration(run.ended - run.started)}" if run.ended is not None else ""
        error = (
            f" · {run.error.name}: {run.error.message.splitlines()[0] if run.error.message else ''}"
            if run.error is not None
            else ""
        )
        say(in_one_line(f"{run.run_id}  {moment(run.started)}  {run.status}  {', '.join(run.targets)}{took}{error}"))


def _logs(face: Face, words: Sequence[str]) -> None:
    store = face.session.store
    if words:
        run_id = words[0]
        if store.run(run_id) is None:
            raise unknown_key("run", run_id, [run.run_id for run in store.runs(limit=50)])
    else:
        newest = store.runs(limit=1)
        if not newest:
            say("no runs yet")
            return
        run_id = newest[0].run_id
    lines = store.logs(run_id)
    for record in lines:
        head = in_one_line(f"{moment(record.time)}  {record.level.lower():<7}  {record.step_key}")
        # Further lines are indented: none of them may look like a record of its own.
        say(f"{head}: {record.message}".replace("\n", "\n    "))
    if not lines:
        say(f"the steps of run {run_id} logged nothing")


def _load(face: Face, words: Sequence[str]) -> None:
    if not words:
        raise UsageError("%stepwell load KEY...: binds the stored values")
    for key in words:
        item = face.session.current(key)
        # A step is not bound by its own name: that is the op's.
        name = key.rpartition("/")[2].replace(".", "_").replace(":", "_")
        name, note = _free_name(face, name)
        face.timeline.bind(name, key, item, face.session.load(key))
        say(f"{name} is {key} of {moment(item.created)} ({item.notebook or 'no notebook'}){note}")


def _inputs(face: Face, words: Sequence[str]) -> None:
    if len(words) != 1:
        raise UsageError("%stepwell inputs STEP: binds what the step is given")
    shown = []
    for name, (keys, value) in face.session.step_inputs(words[0]).items():
        key = keys[0] if len(keys) == 1 and not is_inner(keys[0]) else ""
        chosen, note = _free_name(face, name, key)
        if key:
            face.timeline.bind(chosen, key, face.session.current(key), value)
        else:
            face.namespace[chosen] = value
        shown.append(chosen + note)
    say(f"bound {', '.join(shown)}" if shown else f"{words[0]} has no inputs")


def _free_name(face: Face, name: str, key: str | None = None) -> tuple[str, str]:
    """Return a name that binds over no code and over no other asset's variable: the one that is wanted, or that with ``_`` after it.

    Parameters
    ----------
    key
        The asset whose value is to be bound, empty for any other value; None where the name is the asset's own.

    Returns
    -------
    tuple
        The name, and a note why it is another than the wanted one, empty if it is the same.
    """
    registered = {each.rpartition("/")[2]: each for each in face.session.registry.assets} if key is not None else {}
    chosen, why = name, ""
    while True:
        code = face.code_at(chosen)
        other = registered.get(chosen, key)
        if not code and other == key:
            return chosen, f" ({why})" if why else ""
        why = why or f"{name} is {code or f'the asset {other}'}"
        chosen += "_"


def _code(face: Face, words: Sequence[str]) -> None:
    if len(words) != 1:
        raise UsageError("%stepwell code KEY: shows the code that it was defined with")
    nodes = [node for node in face.session.lineage().nodes if words[0] in (node.key, node.parent, *node.assets)]
    if not nodes:
        raise unknown_key("asset or step", words[0], [node.key for node in face.session.lineage().nodes])
    for node in nodes:
        say(f"# {node.key}" + (f" ({node.where})" if node.where else ""))
        say(node.code.rstrip() or "# its source is not known")


def _store(face: Face, words: Sequence[str]) -> None:
    if words:
        face.session.use(words[0])
    _store_line(face)


COMMANDS: dict[str, Callable[[Face, Sequence[str]], None]] = {
    "status": _status,
    "runs": _runs,
    "logs": _logs,
    "load": _load,
    "inputs": _inputs,
    "code": _code,
    "versions": time_commands.versions,
    "diff": time_commands.diff,
    "rename": time_commands.rename,
    "forget": time_commands.forget,
    "keep": size_commands.keep,
    "gc": size_commands.gc,
    "store": _store,
    "doctor": run_doctor,
    "pack": sharing_commands.pack,
    "trust": sharing_commands.trust,
}
