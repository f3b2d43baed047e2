"""The executor of the kernel's own process: a body runs on the main thread, an async body on a loop thread.

An executor is handed a step with its arguments and returns what the body produced; it knows nothing of stores or staleness.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from types import CodeType, GeneratorType
from typing import Any

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.capture import Capture, pictures, recording, release_figures
from stepwell.kernel_runtime.execution.contexts import Collector, Produced
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads import ReadRecorder
from stepwell.kernel_runtime.records.materializations import Read
from stepwell.kernel_runtime.records.runs import CapturedOutput
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.library_state import reached_by


@dataclass(slots=True)
class Outcome:
    """What running a body gave."""

    produced: dict[str, Produced]
    """By output name; of a failed body what it yielded before."""
    error: BaseException | None
    seconds: float
    outputs: tuple[CapturedOutput, ...]
    reads: tuple[Read, ...]
    network: tuple[str, ...] = ()
    """Hosts on the network that the body opened a connection to."""
    unseen: tuple[str, ...] = ()
    """What it read through native readers and cannot be checked later, each as ``reader: what``."""
    children: tuple[str, ...] = ()
    """Programs and processes that it started: what these read is not seen."""
    last: Any = None
    """The value of a cell's last expression, if the shell keeps it and the expression is not just a variable."""
    recorder: ReadRecorder | None = None
    """What noted the reads; it also knows what was written."""


SqlRunner = Callable[[SqlBody, Mapping[str, Any]], Any]


class InProcess:
    """Runs bodies in this process, one at a time."""

    def __init__(
        self,
        guard: InterruptGuard,
        run_sql: SqlRunner,
        exclude: tuple[Any, ...] = (),
        keyed: Callable[[bytes], str] | None = None,
        namespace: dict[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        """The notebook's variables; None where there is no notebook."""
        self.guard = guard
        self.run_sql = run_sql
        self.exclude = exclude
        """Directories whose files do not count as reads: the store."""
        self.keyed = keyed
        """Digests values of the environment with the user's key."""

    def _counted(self, step: PlanStep) -> Collection[str]:
        """Return the names of the notebook that count for a cell's step without being looked up: inputs, and what its code version has."""
        body = step.op.body
        assert isinstance(body, CellBody)
        assert self.namespace is not None
        return {*step.op.parameters, *reached_names(self.namespace, body.reads)}

    def run(self, step: PlanStep, arguments: Mapping[str, Any], *, show_displays: bool) -> Outcome:
        """Run a step's body with its arguments by name.

        An exception of the body, KeyboardInterrupt included, is part of the outcome and not raised.
        """
        collector = Collector(step)
        capture = Capture(step.key, show_displays=show_displays)
        live = isinstance(step.op.body, CellBody) and step.op.body.live
        codes = _codes(step.op.body)
        own = step.op.body.bound if isinstance(step.op.body, CellBody) and live else ()
        recorder = ReadRecorder(
            self.exclude,
            self.keyed,
            step.op.reads,
            self.namespace,
            partial(self._counted, step) if live else lambda: step.op.parameters,
            before=live,
            own=own,
            looks_at_filters=any(["filters" in facts(code).attributes for code in codes if code is not None]),  # noqa: C419 - a list is quicker for one or two
        )
        error: BaseException | None = None
        started = time.perf_counter()
        try:
            with recording(capture), recorder:
                for name in reached_by(arguments.values(), codes) if arguments else ():
                    recorder.state_read(name)
                self.guard.call(lambda: self._call(step, arguments, collector))
            collector.finish()
            if "matplotlib" in sys.modules:
                self.guard.look(lambda: self._figures(step, collector, capture))
        except BaseException as raised:  # the engine decides what ends the run
            error = raised
        seconds = time.perf_counter() - started
        return Outcome(
            collector.produced,
            error,
            seconds,
            capture.outputs(),
            recorder.reads,
            recorder.network,
            recorder.unseen,
            recorder.children,
            collector.last,
            recorder,
        )

    def _figures(self, step: PlanStep, collector: Collector, capture: Capture) -> None:
        values = [produced.value for produced in collector.produced.values()]
        release_figures(values)
        if not isinstance(step.op.body, CellBody):
            for picture in pictures(values):
                capture.display(picture)

    def _call(self, step: PlanStep, arguments: Mapping[str, Any], collector: Collector) -> None:
        body = step.op.body
        if isinstance(body, CellBody):
            self._cell(body, arguments, collector)
        elif isinstance(body, SqlBody):
            collector.returned(self.run_sql(body, arguments))
        elif step.op.is_async and step.op.is_generator:
            on_loop(lambda: _drain_async(body(**arguments), collector))
        elif step.op.is_async:
            collector.returned(on_loop(lambda: body(**arguments)))
        elif step.op.is_generator:
            for value in body(**arguments):
                collector.yielded(value)
        else:
            found = body(**arguments)
            if type(found) is GeneratorType and not step.op.output_checks:
                # A function that returns a generator of Output instead of being one.
                for value in found:
                    collector.yielded(value)
            else:
                collector.returned(found)

    def _cell(self, body: CellBody, arguments: Mapping[str, Any], collector: Collector) -> None:
        # The names of a live body's inputs are bound in the notebook already.
        space = body.globals if body.live else body.namespace(arguments)
        tail: Any = None
        try:
            if body.code is not None:
                evaluate(body.code, space)
            if body.tail is not None:
                tail = evaluate(body.tail, space)
        except NameError as error:
            explained = body.missing(error) if body.missing is not None else None
            if explained is None:
                raise
            raise explained from error
        if body.tail is not None and body.display is not None and tail is not None:
            body.display(tail)
        if body.result == "":
            collector.last = tail
        value = body.value(space, tail)
        if len(body.outputs) > 1:
            for name, member in zip(body.outputs, value, strict=True):
                collector.add(name, member)
        else:
            collector.add(next(iter(collector.declared)), value)


def _codes(body: Any) -> tuple[CodeType | None, ...]:
    return (body.code, body.tail) if isinstance(body, CellBody) else (getattr(body, "__code__", None),)


async def _drain_async(values: Any, collector: Collector) -> None:
    async for value in values:
        collector.yielded(value)


_loop: asyncio.AbstractEventLoop | None = None
_loop_lock = threading.Lock()


def _loop_thread() -> asyncio.AbstractEventLoop:
    global _loop  # noqa: PLW0603 - one loop thread per process
    with _loop_lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="stepwell-async", daemon=True).start()
        return _loop


def _after_fork_in_child() -> None:
    """Have the next coroutine start a loop: its thread is not here."""
    global _loop, _loop_lock
    _loop, _loop_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def evaluate(code: CodeType, space: dict[str, Any]) -> Any:
    """Evaluate code of a cell, on the loop thread if it awaits at its top level."""
    if code.co_flags & inspect.CO_COROUTINE:
        return on_loop(lambda: eval(code, space))  # noqa: S307 - the user's own cell
    return eval(code, space)  # noqa: S307 - the user's own cell


def on_loop(start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on the loop thread, in a copy of this context, and return its result.

    It is made there, where no interrupt can come between its making and its running. The waiting thread stays interruptible: a KeyboardInterrupt cancels the coroutine.
    """
    loop = _loop_thread()
    done = Once()
    results: list[Any] = []
    errors: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def watched() -> None:
        # A KeyboardInterrupt or SystemExit that left the task would end the loop's thread with it.
        try:
            results.append(await start())
        except BaseException as error:
            errors.append(error)

    def begin() -> None:
        task = loop.create_task(watched())
        tasks.append(task)
        # Also of a task that is cancelled before it has begun.
        task.add_done_callback(lambda _: done.happen())

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    try:
        # Inside: an interrupt may come as soon as the loop's thread has the coroutine.
        loop.call_soon_threadsafe(begin, context=contextvars.copy_context())
        # With a timeout the wait is interruptible on every platform.
        while not done.wait(0.5):
            pass
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        done.wait(5)
        raise
    if errors:
        raise errors[0]
    return results[0]
