"""The executor: it calls a step's body in the kernel's process, and returns the outputs that the body produced.

The executor uses neither the store nor the states of steps. A body runs on the thread of the run; an async body runs on the thread of an event
loop. If the function of a step has a parameter for the execution context, it receives an `OpExecutionContext` (a logger, keys, metadata).

Printed text and displays appear when the body produces them. They are also recorded, in an object of the class `Capture` that is made for each run
of a body, and are then stored with the step. The `Capture` of the running step is the value of a context variable (of Python's ``contextvars``).
During a run, ``sys.stdout`` and ``sys.stderr`` are proxies. A proxy writes text to the real stream and, if the context variable has a `Capture`, also
to this `Capture`. A thread that has a copy of the context variables of a step has the same `Capture`, so its text is recorded for that step, too.
Displays are recorded by the code that publishes them: the notebook front end calls `Capture.display`.

Figures are closed in pyplot before they are stored. Otherwise pyplot would open a window, or show the figure in a notebook, whenever the stored
figure is loaded. A picture of the figure is one of the step's recorded displays, so that a reuse shows the picture without loading the figure.
Cells display their figures themselves; the figures that functions return are rendered here.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import contextvars
import inspect
import io
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass
from functools import partial
from types import CodeType, GeneratorType
from typing import Any, Literal, TextIO, cast

from stepwell.kernel_runtime.definitions.bodies import CellBody, SqlBody
from stepwell.kernel_runtime.errors import (
    InvariantViolationError,
)
from stepwell.kernel_runtime.execution.addresses import reached_names
from stepwell.kernel_runtime.execution.interrupts import InterruptGuard
from stepwell.kernel_runtime.execution.result import Collector, Produced
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.reads import ReadRecorder
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.materializations import Read
from stepwell.kernel_runtime.records.runs import CapturedOutput, LogRecord
from stepwell.kernel_runtime.store.locks import Once
from stepwell.kernel_runtime.versions.bytecode import facts
from stepwell.kernel_runtime.versions.library_state import reached_by


@dataclass(slots=True)
class Outcome:
    """The result of one run of a step's body: its outputs and its exception, its printed text and displays, and its reads."""

    produced: dict[str, Produced]
    """The outputs by name. If the body failed, these are the outputs that it had yielded by then."""
    error: BaseException | None
    seconds: float
    outputs: tuple[CapturedOutput, ...]
    """The printed text and the displays, in order."""
    reads: tuple[Read, ...]
    network: tuple[str, ...] = ()
    """The network hosts to which the body opened a connection."""
    unseen_reads: tuple[str, ...] = ()
    """Reads by native code that no later run can check: texts with the name of the native reader and what it read, for example
    ``polars.scan_parquet: s3://bucket``."""
    children: tuple[str, ...] = ()
    """The names of the programs and processes that the body started, whose reads are not recorded."""
    last_value: Any = None
    """The value of a cell's last expression, if the shell keeps this value in ``Out``. None if ``Out`` gets the value of a variable instead, or
    nothing."""
    recorder: ReadRecorder | None = None
    """The recorder that noted the body's reads and writes."""


_AS_IT_IS = contextlib.nullcontext()
SqlRunner = Callable[[SqlBody, Mapping[str, Any]], Any]
"""Executes a SELECT. Takes the body of the step and its arguments by name; returns the result."""


class InProcess:
    """Runs the bodies of steps in this process, one at a time."""

    def __init__(
        self,
        guard: InterruptGuard,
        run_sql: SqlRunner,
        exclude: tuple[Any, ...] = (),
        keyed: Callable[[bytes], str] | None = None,
        namespace: dict[str, Any] | None = None,
    ) -> None:
        self.namespace = namespace
        """The notebook's variables; None outside notebooks."""
        self.guard = guard
        self.run_sql = run_sql
        self.exclude = exclude
        """Folders, such as the store's folder. Files in them are never recorded as reads."""
        self.keyed = keyed
        """Digests the values of environment variables with the user's key."""

    def _unrecorded_names(self, step: PlanStep) -> Collection[str]:
        """Return the names of variables that are never recorded as reads of a cell: the inputs of its step, and the names that its code reaches."""
        body = step.op.body
        assert isinstance(body, CellBody)
        assert self.namespace is not None
        return {*step.op.parameters, *reached_names(self.namespace, body.reads)}

    def run(self, step: PlanStep, arguments: Mapping[str, Any], hidden: Mapping[str, Any], *, show_displays: bool) -> Outcome:
        """Run the body of a step.

        An exception of the body, even KeyboardInterrupt, is not raised: the outcome contains it.

        Parameters
        ----------
        arguments
            The arguments of the body, by name.
        hidden
            The values of assets that a helper function reads as globals, by name. They are bound in the notebook while the body runs.
        show_displays
            True if displays also appear in the running cell.
        """
        collector = Collector(step)
        capture = Capture(step.key, show_displays=show_displays)
        live = isinstance(step.op.body, CellBody) and step.op.body.runs_in_notebook
        codes = _codes(step.op.body)
        own = step.op.body.bound_names if isinstance(step.op.body, CellBody) and live else ()
        recorder = ReadRecorder(
            self.exclude,
            self.keyed,
            step.op.reads,
            self.namespace,
            partial(self._unrecorded_names, step) if live else lambda: step.op.parameters,
            keep_digests=live,
            bound_names=own,
            reads_filters=any(["filters" in facts(code).attributes for code in codes if code is not None]),  # noqa: C419 - a list is quicker for one or two
        )
        error: BaseException | None = None
        started = time.perf_counter()
        try:
            with self._names_bound(hidden) if hidden else _AS_IT_IS, recording(capture), recorder:
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
            recorder.unseen_reads,
            recorder.children,
            collector.last_value,
            recorder,
        )

    @contextmanager
    def _names_bound(self, hidden: Mapping[str, Any]) -> Iterator[None]:
        """Bind the names in `hidden` in the notebook while the block runs, and restore their previous bindings afterwards."""
        space, absent = self.namespace, object()
        assert space is not None
        before: Mapping[str, Any] = {name: space.get(name, absent) for name in hidden}
        try:
            space.update(hidden)
            yield
        finally:
            for name, value in before.items():
                if value is absent:
                    space.pop(name, None)
                else:
                    space[name] = value

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
            collector.add_returned(self.run_sql(body, arguments))
        elif step.op.is_async and step.op.is_generator:
            on_loop(lambda: _drain_async(body(**arguments), collector))
        elif step.op.is_async:
            collector.add_returned(on_loop(lambda: body(**arguments)))
        elif step.op.is_generator:
            for value in body(**arguments):
                collector.yielded(value)
        else:
            result = body(**arguments)
            if type(result) is GeneratorType and not step.op.output_checks:
                # The function is not a generator function, but it returns a generator of Output objects.
                for value in result:
                    collector.yielded(value)
            else:
                collector.add_returned(result)

    def _cell(self, body: CellBody, arguments: Mapping[str, Any], collector: Collector) -> None:
        # The inputs of a live body are bound in the notebook already.
        space = body.globals if body.runs_in_notebook else body.namespace(arguments)
        tail: Any = None
        try:
            if body.code is not None:
                evaluate(body.code, space)
            if body.tail is not None:
                tail = evaluate(body.tail, space)
        except NameError as error:
            explained = body.explain_name_error(error) if body.explain_name_error is not None else None
            if explained is None:
                raise
            raise explained from error
        if body.tail is not None and body.display is not None and tail is not None:
            body.display(tail)
        if body.result == "":
            collector.last_value = tail
        value = body.value(space, tail)
        if len(body.outputs) > 1:
            for name, member in zip(body.outputs, value, strict=True):
                collector.add(name, member)
        else:
            collector.add(next(iter(collector.declared_outputs)), value)


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
    """Discard the event loop in a forked child process, in which the thread of the loop does not exist. The next coroutine starts a new loop."""
    global _loop, _loop_lock
    _loop, _loop_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_after_fork_in_child)


def evaluate(code: CodeType, space: dict[str, Any]) -> Any:
    """Evaluate the code of a cell, and return the value. Code with a top-level ``await`` runs on the thread of the event loop."""
    if code.co_flags & inspect.CO_COROUTINE:
        return on_loop(lambda: eval(code, space))  # noqa: S307 - the user's own cell
    return eval(code, space)  # noqa: S307 - the user's own cell


def on_loop(start: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run a coroutine on the thread of the event loop, with a copy of this thread's context variables, and return the result of the coroutine.

    This thread waits and can be interrupted: a KeyboardInterrupt cancels the coroutine.

    Parameters
    ----------
    start
        Returns the coroutine. It is called on the thread of the event loop, so that no interrupt can come between the creation of the coroutine
        and its start.
    """
    loop = _loop_thread()
    end = Once()
    results: list[Any] = []
    errors: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def watched() -> None:
        # A KeyboardInterrupt or SystemExit that left the task would end the thread of the event loop.
        try:
            results.append(await start())
        except BaseException as error:
            errors.append(error)

    def begin() -> None:
        task = loop.create_task(watched())
        tasks.append(task)
        # The callback runs even if the task is cancelled before it begins.
        task.add_done_callback(lambda _: end.happen())

    def cancel() -> None:
        for task in tasks:
            task.cancel()

    try:
        # This call is inside the try block, because an interrupt may come as soon as the event loop has the coroutine.
        loop.call_soon_threadsafe(begin, context=contextvars.copy_context())
        # With a timeout the wait is interruptible on every platform.
        while not end.wait(0.5):
            pass
    except BaseException:
        loop.call_soon_threadsafe(cancel)
        end.wait(5)
        raise
    if errors:
        raise errors[0]
    return results[0]


class _Handler(logging.Handler):
    def __init__(self, emit: Callable[[LogRecord], None], run_id: str, step_key: str) -> None:
        super().__init__()
        self._emit = emit
        self._run_id = run_id
        self._step_key = step_key

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + logging.Formatter().formatException(record.exc_info)
        self._emit(LogRecord(self._run_id, self._step_key, time.time(), record.levelname, message))


class OpExecutionContext:
    """The object that the function of an op receives as its argument ``context``."""

    __stepwell_context__ = True

    def __init__(self, step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> None:
        self._step = step
        self._emit = emit
        self._log: logging.Logger | None = None
        self.run_id = run_id
        self.job_name = job_name
        self.retry_number = 0
        self.output_metadata: dict[str, dict[str, Any]] = {}

    @property
    def log(self) -> logging.Logger:
        """A logger. Its lines are stored with the run, and ``%stepwell logs`` shows them."""
        if self._log is None:
            # The logger is not registered by name, because the table of `logging` would grow by one entry for each of thousands of steps.
            logger = logging.Logger(f"stepwell.{self._step.key}", logging.DEBUG)  # noqa: LOG001 - see above
            logger.addHandler(_Handler(self._emit, self.run_id, self._step.key))
            self._log = logger
        return self._log

    @property
    def step_key(self) -> str:
        """The key of the step that runs."""
        return self._step.key

    @property
    def op_name(self) -> str:
        """The name of the op."""
        return self._step.op.name

    @property
    def op(self) -> Any:
        """The op's definition."""
        return self._step.op

    @property
    def op_config(self) -> dict[str, Any]:
        """The op's config by name, including default values."""
        return dict(self._step.config)

    @property
    def selected_output_names(self) -> set[str]:
        """The names of the step's outputs."""
        return {output.name for output in self._step.outputs}

    def add_output_metadata(self, metadata: Mapping[str, Any], output_name: str | None = None) -> None:
        """Attach metadata to the materialization of an output.

        Parameters
        ----------
        metadata
            JSON values by name. Other values are converted to strings.
        output_name
            The name of the output. It may be omitted if the step has only one output.

        Raises
        ------
        InvariantViolationError
            If the step has no output of this name, or if no name is passed and the step does not have exactly one output.
        """
        names = [output.name for output in self._step.outputs]
        if output_name is None and len(names) == 1:
            output_name = names[0]
        if output_name not in names:
            what = f"{output_name!r}, which is not one of its outputs" if output_name else "an output without naming it"
            raise InvariantViolationError(
                f"step {self._step.key!r} adds metadata to {what}",
                where=self._step.where,
                remedy=f"pass the name of one of the step's outputs as output_name: {', '.join(names)}"
                if names
                else "declare an output",
            )
        self.output_metadata.setdefault(output_name, {}).update(metadata)


class AssetExecutionContext(OpExecutionContext):
    """The object that the function of an asset receives as its argument ``context``."""

    @property
    def asset_key(self) -> AssetKey:
        """The key of the asset that the step produces; if the step produces several assets, the key of the first."""
        return next(output.asset_key for output in self._step.outputs if output.asset_key is not None)

    @property
    def selected_asset_keys(self) -> set[AssetKey]:
        """The keys of the assets that the step produces."""
        return {output.asset_key for output in self._step.outputs if output.asset_key is not None}

    def asset_key_for_output(self, output_name: str = "result") -> AssetKey | None:
        """Return the key of the asset that an output of the step produces; None if there is no such output, or if the output is not an asset."""
        return next((output.asset_key for output in self._step.outputs if output.name == output_name), None)

    add_asset_metadata = OpExecutionContext.add_output_metadata


def context_for(step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> OpExecutionContext:
    """Return the context for the function of a step: an `AssetExecutionContext` for an asset outside a job, else an `OpExecutionContext`.

    Parameters
    ----------
    job_name
        The name of the job; empty outside a job.
    emit
        Called with each line that the function logs.
    """
    kind = (
        AssetExecutionContext
        if any(output.asset_key is not None for output in step.outputs) and not job_name
        else OpExecutionContext
    )
    return kind(step, run_id, job_name or "__ephemeral_asset_job__", emit)


def release_figures(values: Iterable[Any]) -> None:
    """Remove the matplotlib figures among `values` from pyplot, so that pyplot does not show them. The figures stay usable."""
    module, pyplot = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.pyplot")
    if module is None or pyplot is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            pyplot.close(value)


def pictures(values: Iterable[Any]) -> Iterator[dict[str, str]]:
    """Yield a display for each matplotlib figure among `values`: a rendered picture with a line of text. Figures that cannot be drawn are left out."""
    module = sys.modules.get("matplotlib.figure")
    if module is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            data = io.BytesIO()
            # A figure that cannot be drawn is still a valid value of a step.
            with contextlib.suppress(Exception):
                value.savefig(data, format="png", bbox_inches="tight")
                yield {"image/png": base64.b64encode(data.getvalue()).decode("ascii"), "text/plain": repr(value)}


LIMIT = 1_000_000
"""The maximum number of characters of printed text and display data that are recorded for a step. Further characters are only counted. A display that
exceeds the maximum by itself is recorded if nothing was recorded before it."""

_current: ContextVar[Capture | None] = ContextVar("stepwell_capture", default=None)


class Capture:
    """Records the printed text and the displays of one step."""

    __slots__ = ("_characters_left", "_outputs", "_parts", "_stream", "dropped_characters", "show_displays", "step_key")

    def __init__(self, step_key: str, *, show_displays: bool = True) -> None:
        self.step_key = step_key
        self.show_displays = show_displays
        """True if displays also appear in the running cell. They are recorded in any case."""
        self.dropped_characters = 0
        """The number of characters that were not recorded, because the step exceeded `LIMIT`."""
        self._outputs: list[CapturedOutput] = []
        self._stream = ""
        self._parts: list[str] = []
        self._characters_left = LIMIT

    def write(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Record printed text, up to `LIMIT` characters in total."""
        if self._characters_left <= 0:
            self.dropped_characters += len(text)
            return
        if len(text) > self._characters_left:
            self.dropped_characters += len(text) - self._characters_left
            text = text[: self._characters_left]
        self._characters_left -= len(text)
        if stream != self._stream:
            self._end_stream()
            self._stream = stream
        self._parts.append(text)

    def display(self, data: dict[str, Any], metadata: dict[str, Any] | None = None) -> None:
        """Record a display. `data` maps each MIME type to a representation of the display, and `metadata` to the metadata of this representation."""
        size = sum(len(value) if isinstance(value, str | bytes) else 1000 for value in data.values())
        if size > self._characters_left and self._characters_left < LIMIT:
            self.dropped_characters += size
            return
        self._characters_left -= size
        self._end_stream()
        self._outputs.append(CapturedOutput("display_data", data=dict(data), metadata=dict(metadata or {})))

    def clear(self) -> None:
        """Discard everything that was recorded so far, because the step cleared its output."""
        self._end_stream()
        self._outputs.clear()
        self._characters_left = LIMIT

    def _end_stream(self) -> None:
        if self._parts:
            self._outputs.append(CapturedOutput("stream", self._stream, "".join(self._parts)))
            self._parts = []

    def outputs(self) -> tuple[CapturedOutput, ...]:
        """Return the recorded text and displays in order. If there were too many characters, a last line says how many were not recorded."""
        self._end_stream()
        self._stream = ""
        if self.dropped_characters:
            self._outputs.append(
                CapturedOutput("stream", "stdout", f"... {self.dropped_characters:,} more characters were not recorded\n")
            )
            self.dropped_characters = 0
        return tuple(self._outputs)


class _Tee:
    """A proxy for a standard stream: it writes text to the stream and, if `current` returns a `Capture`, also to this `Capture`."""

    def __init__(self, stream: TextIO, name: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        sink = _current.get()
        if sink is not None and text:
            sink.write(self._name, text)
        return self._stream.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def current() -> Capture | None:
    """Return the `Capture` that records the output of the calling code (the value of the context variable `_current`); None if there is none."""
    return _current.get()


class recording:  # noqa: N801 - used as a function; a generator's context manager costs each step three times as much
    """A context manager: what its block prints and displays is recorded in `capture`. If `capture` is None, nothing is recorded."""

    __slots__ = ("_capture", "_token")
    _token: Token[Capture | None]

    def __init__(self, capture: Capture | None) -> None:
        self._capture = capture

    def __enter__(self) -> None:
        self._token = _current.set(self._capture)

    def __exit__(self, *_: object) -> None:
        _current.reset(self._token)


@contextmanager
def proxied() -> Iterator[None]:
    """Replace ``sys.stdout`` and ``sys.stderr`` by the proxies while the block runs."""
    before = sys.stdout, sys.stderr
    mine = _Tee(before[0], "stdout"), _Tee(before[1], "stderr")
    sys.stdout, sys.stderr = streams = cast("tuple[TextIO, TextIO]", mine)
    try:
        yield
    finally:
        # If a step has replaced a proxy by another stream, the step's stream stays.
        if sys.stdout is streams[0]:
            sys.stdout = before[0]
        if sys.stderr is streams[1]:
            sys.stderr = before[1]
