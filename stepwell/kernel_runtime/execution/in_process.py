"""The executor of the kernel's process: it calls a step's body with its arguments, and returns the values that the body produced.

An executor does not use stores or states. A body runs on the thread of the run, an async body on a loop thread. A body that declares a
parameter for the context receives a context (``context.log``, keys, metadata).

Printed text and displays are shown as they are produced, and stored with the materialization. During a run, ``sys.stdout`` and
``sys.stderr`` are proxies that write to the real streams and, in the context of a step, also record. The sink is a context variable, so
a thread that starts with a copy of a step's context records into that step. Displays are recorded by the code that publishes them: the
notebook front end calls `Capture.display`.

Figures are closed in pyplot before they are stored. Otherwise pyplot would open a window, or show the figure in a notebook, wherever the
stored figure is loaded. A picture of the figure is part of the step's displays, so that reuse shows the picture without loading the
figure. Cells display their figures themselves; figures of functions are rendered here.
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
    """The outcome of running a body."""

    produced: dict[str, Produced]
    """The outputs by name; of a failed body, the outputs that it yielded before it failed."""
    error: BaseException | None
    seconds: float
    outputs: tuple[CapturedOutput, ...]
    reads: tuple[Read, ...]
    network: tuple[str, ...] = ()
    """Network hosts to which the body opened a connection."""
    unseen_reads: tuple[str, ...] = ()
    """Reads through native readers that cannot be checked later, as ``reader: source``."""
    children: tuple[str, ...] = ()
    """Programs and processes that the body started: their reads are not recorded."""
    last_value: Any = None
    """The value of a cell's last expression, if the shell keeps the value and the expression is not just a variable."""
    recorder: ReadRecorder | None = None
    """The recorder of the body's reads and writes."""


_AS_IT_IS = contextlib.nullcontext()
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
        """The notebook's variables; None outside notebooks."""
        self.guard = guard
        self.run_sql = run_sql
        self.exclude = exclude
        """Directories in which file accesses are not recorded as reads, such as the store."""
        self.keyed = keyed
        """Digests values of the environment with the user's key."""

    def _unrecorded_names(self, step: PlanStep) -> Collection[str]:
        """Return the names of the notebook that need no recorded read: the inputs of a cell's step, and the names that its code reaches."""
        body = step.op.body
        assert isinstance(body, CellBody)
        assert self.namespace is not None
        return {*step.op.parameters, *reached_names(self.namespace, body.reads)}

    def run(
        self, step: PlanStep, arguments: Mapping[str, Any], hidden: Mapping[str, Any], *, show_displays: bool
    ) -> Outcome:
        """Run a step's body with its arguments by name.

        An exception of the body, KeyboardInterrupt included, is part of the outcome and not raised.

        Parameters
        ----------
        hidden
            Values by name of assets that a helper function reads as globals; they are bound in the notebook while the body runs.
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
        """Bind names in the notebook for the block, and restore their previous bindings afterwards."""
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
                # The function is not a generator function, but returns a generator of Output.
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
    """Discard the loop, because its thread does not exist in the child; the next coroutine starts a new one."""
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

    The coroutine is created on the loop thread, where no interrupt can come between its creation and its start. The waiting thread stays
    interruptible: a KeyboardInterrupt cancels the coroutine.
    """
    loop = _loop_thread()
    end = Once()
    results: list[Any] = []
    errors: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def watched() -> None:
        # A KeyboardInterrupt or SystemExit that left the task would end the loop's thread.
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
        # Inside the try block, because an interrupt may come as soon as the loop's thread has the coroutine.
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
    """The object that an op's function gets as its parameter ``context``."""

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
        """A logger whose lines are stored with the run; ``%stepwell logs`` shows these lines."""
        if self._log is None:
            # Not registered by name: thousands of steps would fill logging's table.
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
        """The op's config with its defaults."""
        return dict(self._step.config)

    @property
    def selected_output_names(self) -> set[str]:
        """The names of the step's outputs."""
        return {output.name for output in self._step.outputs}

    def add_output_metadata(self, metadata: Mapping[str, Any], output_name: str | None = None) -> None:
        """Attach JSON values to the materialization of an output; the name may be omitted if the step has only one output.

        Raises
        ------
        InvariantViolationError
            If the step has no output of this name, or has several outputs and no name is passed.
        """
        names = [output.name for output in self._step.outputs]
        if output_name is None and len(names) == 1:
            output_name = names[0]
        if output_name not in names:
            raise InvariantViolationError(
                f"step {self._step.key!r} adds metadata to {output_name or 'an output without a name'}",
                where=self._step.where,
                remedy=f"pass output_name=, one of: {', '.join(names) or 'none'}",
            )
        self.output_metadata.setdefault(output_name, {}).update(metadata)


class AssetExecutionContext(OpExecutionContext):
    """The object that an asset's function gets as its parameter ``context``."""

    @property
    def asset_key(self) -> AssetKey:
        """The key of the asset; if the step has several assets, the key of the first."""
        return next(output.asset_key for output in self._step.outputs if output.asset_key is not None)

    @property
    def selected_asset_keys(self) -> set[AssetKey]:
        """The keys of the step's assets."""
        return {output.asset_key for output in self._step.outputs if output.asset_key is not None}

    def asset_key_for_output(self, output_name: str = "result") -> AssetKey | None:
        """Return the key of the asset of an output, or None if the output is not an asset."""
        return next((output.asset_key for output in self._step.outputs if output.name == output_name), None)

    add_asset_metadata = OpExecutionContext.add_output_metadata


def context_for(step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> OpExecutionContext:
    """Return the context of a step: of an asset outside jobs an `AssetExecutionContext`, else an `OpExecutionContext`."""
    kind = (
        AssetExecutionContext
        if any(output.asset_key is not None for output in step.outputs) and not job_name
        else OpExecutionContext
    )
    return kind(step, run_id, job_name or "__ephemeral_asset_job__", emit)


def release_figures(values: Iterable[Any]) -> None:
    """Close the matplotlib figures among some values in pyplot; the figures stay usable."""
    module, pyplot = sys.modules.get("matplotlib.figure"), sys.modules.get("matplotlib.pyplot")
    if module is None or pyplot is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            pyplot.close(value)


def pictures(values: Iterable[Any]) -> Iterator[dict[str, str]]:
    """Yield a display for each matplotlib figure among some values: a rendered picture and a line of text."""
    module = sys.modules.get("matplotlib.figure")
    if module is None:
        return
    for value in values:
        if issubclass(type(value), module.Figure):
            data = io.BytesIO()
            # A figure that cannot be drawn is still a valid value.
            with contextlib.suppress(Exception):
                value.savefig(data, format="png", bbox_inches="tight")
                yield {"image/png": base64.b64encode(data.getvalue()).decode("ascii"), "text/plain": repr(value)}


LIMIT = 1_000_000
"""The number of characters of text and display data that are kept per step; further characters are only counted."""

_current: ContextVar[Capture | None] = ContextVar("stepwell_capture", default=None)


class Capture:
    """The sink for the printed text and the displays of one step."""

    __slots__ = ("_characters_left", "_outputs", "_parts", "_stream", "dropped_characters", "show_displays", "step_key")

    def __init__(self, step_key: str, *, show_displays: bool = True) -> None:
        self.step_key = step_key
        self.show_displays = show_displays
        """True if displays also appear in the running cell; they are always recorded."""
        self.dropped_characters = 0
        """The number of characters that were not kept."""
        self._outputs: list[CapturedOutput] = []
        self._stream = ""
        self._parts: list[str] = []
        self._characters_left = LIMIT

    def write(self, stream: Literal["stdout", "stderr"], text: str) -> None:
        """Record printed text."""
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
        """Record a display: a MIME bundle of JSON values."""
        size = sum(len(value) if isinstance(value, str | bytes) else 1000 for value in data.values())
        if size > self._characters_left and self._characters_left < LIMIT:
            self.dropped_characters += size
            return
        self._characters_left -= size
        self._end_stream()
        self._outputs.append(CapturedOutput("display_data", data=dict(data), metadata=dict(metadata or {})))

    def clear(self) -> None:
        """Discard everything recorded so far, because the step cleared its output."""
        self._end_stream()
        self._outputs.clear()
        self._characters_left = LIMIT

    def _end_stream(self) -> None:
        if self._parts:
            self._outputs.append(CapturedOutput("stream", self._stream, "".join(self._parts)))
            self._parts = []

    def outputs(self) -> tuple[CapturedOutput, ...]:
        """Return the recorded outputs in order."""
        self._end_stream()
        self._stream = ""
        if self.dropped_characters:
            self._outputs.append(
                CapturedOutput("stream", "stdout", f"... {self.dropped_characters:,} more characters were not kept\n")
            )
            self.dropped_characters = 0
        return tuple(self._outputs)


class _Tee:
    """A proxy that writes to a stream and, in the context of a step, also records."""

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
    """Return the sink of the step that runs in this context, or None."""
    return _current.get()


class recording:  # noqa: N801 - used as a function; a generator's context manager costs each step three times as much
    """Record the printed text and the displays of a block in a sink; None records nothing."""

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
    """Install the proxies for the duration of a run."""
    before = sys.stdout, sys.stderr
    mine = _Tee(before[0], "stdout"), _Tee(before[1], "stderr")
    sys.stdout, sys.stderr = streams = cast("tuple[TextIO, TextIO]", mine)
    try:
        yield
    finally:
        # A step may have replaced a stream on purpose; its replacement stays.
        if sys.stdout is streams[0]:
            sys.stdout = before[0]
        if sys.stderr is streams[1]:
            sys.stderr = before[1]
