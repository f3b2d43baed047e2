"""Objects whose special methods raise, lie or never end, put wherever a step can meet them."""

import itertools
import os
import signal
import sys
import threading
import time
from pathlib import Path

import stepwell
from stepwell.kernel_runtime.errors import StepwellError
from stepwell.kernel_runtime.execution.result import RunResult


class Own(BaseException):
    """An exception that no ``except Exception`` catches."""


def raising(kind):
    def method(*_, **__):
        raise kind("hostile")

    return method


def _deeper():
    return _deeper()


def deep(*_, **__):
    # CPython 3.13 does not count calls of functions that take any arguments: they would go on until the memory ends.
    return _deeper()


def forever(*_, **__):
    while True:
        time.sleep(0.01)


HOW = {
    "raises": raising(ValueError),
    "exits": raising(SystemExit),
    "raises its own": raising(Own),
    "interrupts": raising(KeyboardInterrupt),
    "recurses": deep,
    "no memory": raising(MemoryError),
    "lies": lambda *_, **__: object(),
    "lies with a text": lambda *_, **__: "\ud800\0 not what you asked for",
    "for ever": forever,
}
METHODS = (
    "__repr__", "__str__", "__format__", "__eq__", "__hash__", "__class__", "__reduce__", "__reduce_ex__", "__getstate__", "__len__",
    "__bool__", "__iter__", "__index__", "__float__", "__getattr__", "__getattribute__", "__dict__", "__doc__", "__del__", "__fspath__",
    "__array__", "__deepcopy__", "__add__", "shape", "_repr_html_", "_repr_mimebundle_", "__notes__", "__cause__", "__traceback__",
)  # fmt: skip
_AS_PROPERTY = frozenset(("__class__", "__dict__", "__doc__", "shape", "__notes__", "__cause__", "__traceback__"))


def hostile(method, how, base=object):
    """Return a class of which one method is hostile."""
    found = HOW[how]
    if method in _AS_PROPERTY:
        found = property(found)
    space = {method: found, "__module__": __name__}
    if method == "__eq__":
        space["__hash__"] = object.__hash__
    return type("Hostile", (base,), space)


# -- where: each returns the steps that meet the object ------------------------------------------------------------------


HELD = None
SHELF: list = []


def value(cls):
    @stepwell.asset
    def bad():
        return cls()

    return [bad]


def inside(cls):
    @stepwell.asset
    def bad():
        return [1, {"a": cls()}]

    return [bad]


def key(cls):
    @stepwell.asset
    def bad():
        return {cls(): 1}

    return [bad]


def member(cls):
    @stepwell.asset
    def bad():
        return {cls(), 1}

    return [bad]


def metadata(cls):
    @stepwell.asset
    def bad():
        return stepwell.Output(1, metadata={"a": cls()})

    return [bad]


def metadata_key(cls):
    @stepwell.asset
    def bad():
        return stepwell.Output(1, metadata={"a": {cls(): 1}})

    return [bad]


def typed(cls):
    @stepwell.asset
    def bad() -> int:
        return cls()

    return [bad]


def typed_list(cls):
    @stepwell.asset
    def bad() -> list[int]:
        return [cls()]

    return [bad]


def default(cls):
    held = cls()

    @stepwell.op
    def bad(x=held):
        return 1

    return [stepwell.asset(name="bad")(lambda x=held: 1)]


def closure(cls):
    held = cls()

    @stepwell.asset
    def bad():
        return type(held).__name__

    return [bad]


def global_(cls):
    sys.modules[__name__].HELD = cls()

    @stepwell.asset
    def bad():
        return type(HELD).__name__

    return [bad]


def changed_global(cls):
    sys.modules[__name__].SHELF = []

    @stepwell.asset
    def bad():
        SHELF.append(cls())
        return 1

    return [bad]


def yielded(cls):
    @stepwell.asset
    def bad():
        yield cls()

    return [bad]


def exception(cls):
    kind = type("HostileError", (Exception,), {**vars(cls)})

    @stepwell.asset
    def bad():
        raise kind("a", "b")

    return [bad]


def argument_of_exception(cls):
    @stepwell.asset
    def bad():
        raise ValueError(cls())

    return [bad]


def cause(cls):
    kind = type("HostileError", (Exception,), {**vars(cls)})

    @stepwell.asset
    def bad():
        raise ValueError("x") from kind("a")

    return [bad]


def class_itself(cls):
    meta = type(
        "Meta",
        (type,),
        {name: each for name, each in vars(cls).items() if name not in {"__dict__", "__weakref__", "__doc__"}},
    )

    @stepwell.asset
    def bad():
        return meta("Made", (), {"__module__": __name__})()

    return [bad]


PLACES = (
    value, inside, key, member, metadata, metadata_key, typed, typed_list, default, closure, global_, changed_global, yielded, exception,
    argument_of_exception, cause, class_itself,
)  # fmt: skip
CASES = [
    (place.__name__, method, how)
    for place, method, how in itertools.product(PLACES, METHODS, HOW)
    # The garbage collector calls it in any thread, where nothing can interrupt it.
    if (method, how) != ("__del__", "for ever")
]


@stepwell.asset
def innocent():
    return 5


def interrupting(seconds):
    """Press Ctrl-C after some seconds, and again."""
    over = threading.Event()

    def press():
        while not over.wait(seconds):
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    return over


def wrong(store, place, method, how, seconds=0.4):
    """Run a step that meets a hostile object, and one that does not; return what does not hold, empty if all does."""
    name = f"{place}, {method} {how}"
    before = {run.run_id for run in store.runs(limit=5)}
    over = interrupting(seconds) if how == "for ever" else None
    result = None
    raised = None
    try:
        try:
            steps = next(each for each in PLACES if each.__name__ == place)(hostile(method, how))
        except BaseException:
            # It cannot even be made.
            return ""
        try:
            result = stepwell.materialize([*steps, innocent], store=store, raise_on_error=False)
        except BaseException as error:
            raised = error
    finally:
        if over is not None:
            over.set()
    interrupted = type(raised) is KeyboardInterrupt
    if raised is not None and not interrupted and not issubclass(type(raised), StepwellError):
        return f"{name}: {type(raised).__name__} was raised"
    if raised is not None and not interrupted:
        return "" if place in {"default", "closure", "global_"} and "bad" in str(raised) else f"{name}: no run: {raised}"
    if interrupted and how not in {"for ever", "interrupts"}:
        return f"{name}: interrupted"
    runs = [run for run in store.runs(limit=5) if run.run_id not in before]
    if interrupted and not runs:
        # It was planned: nothing had begun.
        return ""
    if len(runs) != 1 or runs[0].status not in ({"cancelled", "failure", "success"} if interrupted else {"success", "failure"}):
        return f"{name}: recorded as {[run.status for run in runs]}"
    if interrupted:
        return ""
    assert type(result) is RunResult
    statuses = {step.key: step.status for step in result.steps}
    if statuses["innocent"] not in {"executed", "reused"}:
        return f"{name}: {statuses}"
    if statuses["bad"] == "failed":
        record = next(step for step in result.steps if step.key == "bad")
        if record.error is None:
            return f"{name}: no error is recorded"
        error = result.error
        own = issubclass(type(error), StepwellError)
        if own and "bad" not in str(error):
            return f"{name}: does not name the step: {error}"
        if (
            not own
            and how != "no memory"
            # The body itself makes the mapping, and so calls the method.
            and (place, method) != ("metadata_key", "__hash__")
            and place
            not in {
                "exception",
                "argument_of_exception",
                "cause",
                "key",
                "member",
                "yielded",
                "class_itself",
            }
        ):
            return f"{name}: {type(error).__name__} is no error of Stepwell"
    elif statuses["bad"] not in {"executed", "reused"}:
        return f"{name}: {statuses}"
    return ""


if __name__ == "__main__":
    import tempfile

    from stepwell.kernel_runtime.session import get_session

    store = get_session().open(Path(tempfile.mkdtemp()) / "store")
    chosen = CASES[int(sys.argv[1]) :: int(sys.argv[2])]
    count = 0
    for case in chosen:
        if len(sys.argv) > 3:
            print(case, flush=True)
        signal.alarm(30)
        found = wrong(store, *case)
        count += 1
        if found:
            print("WRONG", ascii(found[:300]), flush=True)
    print("END", count, flush=True)
