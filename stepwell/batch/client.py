"""A subclass of nbclient's client that executes cells like a front end.

Cell ids: JupyterLab sends the id of a cell to the kernel in the metadata of the execute request (``cellId``), and the kernel uses the id to
identify the cell of a definition. nbclient does not send the id; this client does.

Signals: nbclient kills the kernel when a signal arrives. This client interrupts the running cell instead, like the interrupt button of a front
end. The running step is then recorded as cancelled, the results of finished steps are stored, and the kernel shuts down normally.

Outputs: if a cell writes several times in succession to standard output, or to standard error, the texts become one output.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError
from nbclient.util import ensure_async

from stepwell.batch.notebooks import is_run
from stepwell.batch.terminal import Progress

TERMINATION_GRACE = 5.0
"""A kernel is killed if it still runs this many seconds after SIGTERM, or if its cell still runs this many seconds after a limit was exceeded. The
time is short, because the sender of SIGTERM usually sends SIGKILL soon."""
TICK = 0.5
"""Seconds between two updates of the elapsed time in the progress line."""


class BatchClient(NotebookClient):
    """Executes the cells of one notebook for `stepwell.batch.run`.

    Parameters
    ----------
    notebook
        The notebook. The outputs of the cells are added to it in place.
    progress
        The progress line, which this client updates.
    save
        Saves the notebook. It is called after every executed cell, even if the cell failed.
    limits
        Two time limits in seconds: the first for each cell, the second for the whole execution. None means no limit.
    options
        Traits of ``nbclient.NotebookClient``.

    Attributes
    ----------
    signal
        The first signal that arrived during the execution; None if none arrived.
    """

    def __init__(
        self,
        notebook: Any,
        *,
        progress: Progress,
        save: Callable[[], None],
        limits: tuple[float | None, float | None] = (None, None),
        **options: Any,
    ) -> None:
        # nbclient would write times into the metadata of cells, and no two executions would give equal notebooks.
        super().__init__(notebook, **{"record_timing": False, **options})
        self.progress = progress
        self.save = save
        self.signal: signal.Signals | None = None
        self.timed_out = ""
        """The message about an exceeded limit; empty if no limit was exceeded."""
        self._cell_limit, self._limit = limits
        self.cell: Any = None
        """The running cell or, between two cells and after the execution, the last cell that ran; None before the first cell."""
        self._signalling: asyncio.Future[Any] | None = None
        self._executing = False

    # -- one cell ----------------------------------------------------------------------------------------------------

    async def async_execute_cell(
        self, cell: Any, cell_index: int, execution_count: int | None = None, store_history: bool = True
    ) -> Any:
        """Execute one cell, and send the cell's id to the kernel with the execute request.

        Raises
        ------
        CellTimeoutError
            If a limit was exceeded before or during the execution.
        InterruptedError
            If a signal arrived during the execution, but the cell raised no exception.
        """
        if self.timed_out:
            # The limit was exceeded while no cell ran.
            raise CellTimeoutError(self.timed_out)
        if not is_run(cell):
            return await super().async_execute_cell(cell, cell_index, execution_count, store_history)
        self.cell = cell
        assert self.kc is not None
        self.kc.session.metadata = {"cellId": cell.id}
        self.progress.begin(self.code_cells_executed + 1, cell.source)
        ticking = asyncio.ensure_future(self._tick())
        self._executing = True
        limit = self._call_after(self._cell_limit, "the cell took longer than {} s (--cell-timeout)")
        try:
            await super().async_execute_cell(cell, cell_index, execution_count, store_history)
        except BaseException:
            self.progress.end("interrupted" if self.signal else "failed")
            raise
        else:
            self.progress.end()
        finally:
            self._executing = False
            ticking.cancel()
            if limit is not None:
                limit.cancel()
            if self.kc is not None:
                self.kc.session.metadata = {}
            self.save()
        if self.timed_out:
            raise CellTimeoutError(self.timed_out)
        if self.signal is not None:
            # No exception was raised here: the cell caught KeyboardInterrupt, or the cell is allowed to fail (raises-exception).
            raise InterruptedError
        return cell

    def _call_after(self, seconds: float | None, message: str) -> asyncio.TimerHandle | None:
        """Schedule `_time_out` after a number of seconds; do nothing and return None if `seconds` is None.

        Parameters
        ----------
        message
            The message about the exceeded limit; ``{}`` stands for the seconds.
        """
        if seconds is None:
            return None
        return asyncio.get_running_loop().call_later(seconds, self._time_out, message.format(f"{seconds:g}"))

    def _time_out(self, message: str) -> None:
        """Record that a limit was exceeded, and interrupt the running cell. If the cell still runs after `TERMINATION_GRACE`, kill the kernel."""
        self.timed_out = self.timed_out or message
        if self._executing and self.km is not None:
            self._signalling = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))
            asyncio.get_running_loop().call_later(TERMINATION_GRACE, self._end_if_running)

    def _end_if_running(self) -> None:
        if self._executing:
            self._end_now()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.progress.tick()

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: str | None, cell_index: int) -> Any:
        """Add an output message to the outputs of a cell.

        Like a front end, append text of a stream (``stdout`` or ``stderr``) to the last output if the last output is text of the same stream. If
        the message says that a step waits for another process, show it in the progress line, and do not add it to the outputs.
        """
        content = msg["content"]
        if msg["msg_type"] == "display_data" and content.get("metadata", {}).get("stepwell") == "waiting":
            # The note is not saved, because the executed notebook must not depend on which process computed a step.
            self.progress.note(content["data"]["text/plain"])
            return None
        if msg["msg_type"] == "stream":
            self.progress.log(content["text"])
        last = outs[-1] if outs else None
        if (
            msg["msg_type"] == "stream"
            and last is not None
            and last["output_type"] == "stream"
            and last["name"] == msg["content"]["name"]
            and not self.clear_before_next_output
            and not self.output_hook_stack[msg["parent_header"].get("msg_id")]
        ):
            last["text"] += msg["content"]["text"]
            return last
        return super().output(outs, msg, display_id, cell_index)

    # -- the kernel --------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def async_setup_kernel(self, **kwargs: Any) -> AsyncGenerator[None, None]:
        """Start the kernel, and shut it down at the end of the ``async with`` block. In the block, SIGINT and SIGTERM interrupt the running cell.

        Raises
        ------
        TimeoutError
            If the limit of the whole execution was exceeded during the start.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        handled = []
        for number in (signal.SIGINT, signal.SIGTERM):
            # On Windows and outside the main thread, event loops have no signal handlers, and Python raises KeyboardInterrupt for SIGINT.
            with contextlib.suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, self._on_signal, number, task)
                handled.append(number)
        self.create_kernel_manager()
        limit = self._call_after(self._limit, "the run took longer than {} s (--timeout)")
        try:
            async with asyncio.timeout(self._limit):
                await self.async_start_new_kernel(**kwargs)
                await self.async_start_new_kernel_client()
            yield
        finally:
            # Cancel the limit before the shutdown. Otherwise a slow shutdown would be reported instead of the end of the last cell.
            if limit is not None:
                limit.cancel()
            if self.km is not None:
                await self._async_cleanup_kernel()
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self, received: signal.Signals, task: asyncio.Task[Any]) -> None:
        first = self.signal is None
        self.signal = self.signal or received
        if not first:
            self._end_now()
        elif not self._executing or self.km is None:
            task.cancel()
        else:
            self._signalling = asyncio.ensure_future(ensure_async(self.km.interrupt_kernel()))
            if received is signal.SIGTERM:
                asyncio.get_running_loop().call_later(TERMINATION_GRACE, self._end_now)

    def _end_now(self) -> None:
        # nbclient checks the kernel every second and ends the cell when the kernel is dead.
        if self.km is not None:
            self._signalling = asyncio.ensure_future(ensure_async(self.km.shutdown_kernel(now=True)))
