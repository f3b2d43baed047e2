"""The live lineage in the notebook: an anywidget with an SVG picture that the kernel draws.

The kernel computes the layout and draws the picture. The browser pans, zooms, selects cards and paints the states of cards. If cards or edges
change, the kernel sends the picture (``svg``) and the contents of the side panel (``details``). If a state changes, it sends the states of all cards
(``nodes``).

A button in the browser sends its request twice, in two messages. The message ``ask`` only shows the requested steps as queued; ipykernel may handle
it on another thread while a cell runs. The message ``go`` runs the steps; it is handled on the main thread between cells. User code therefore runs
only on the main thread. The message ``cancel`` takes effect immediately. It cancels the run that the browser shows, and all requests that were
received before the message, but no later requests.

During a run, `Overlay` combines the events of the run with the states that the session had before the run. A separate thread sends changed states to
the browser, so that steps do not wait for the picture. The thread sends at most every 50 ms, and after each delivery sleeps five times as long as the
delivery took.
"""

from __future__ import annotations

import logging
import pathlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import anywidget
import traitlets

from stepwell.commands.lineage import (
    ATTENTION,
    KINDS,
    SYMBOLS,
    Part,
    assets_of,
    counts,
    group_words,
    headline,
    node_state,
    outdated,
    upstream_of,
)
from stepwell.kernel_runtime.errors import StepwellError
from stepwell.kernel_runtime.records.runs import (
    DefinitionsChanged,
    Event,
    Lineage,
    LineageNode,
    RunFinished,
    RunStarted,
    StepFinished,
    StepRecord,
    StepStarted,
    StepWaiting,
)
from stepwell.kernel_runtime.session import Session
from stepwell.kernel_runtime.text import duration, printable
from stepwell.widgets.layout import layout, members
from stepwell.widgets.picture import lineage_svg, static_bundle, status_style

INTERVAL = 0.05
"""The minimum time between two deliveries of `Paced`, in seconds."""


class Paced:
    """A queue that collects events and delivers them in batches on a separate thread.

    Parameters
    ----------
    deliver
        Called with the events since the last call, in order. All calls are made on the same thread.
    """

    def __init__(self, deliver: Callable[[list[Event]], None]) -> None:
        self._deliver = deliver
        self._waiting: deque[Event] = deque()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def put(self, event: Event) -> None:
        """Add an event to the queue without waiting for its delivery. This method may be called on any thread."""
        self._waiting.append(event)
        if not self._wake.is_set():
            self._start()
            self._wake.set()

    def close(self) -> None:
        """Stop the delivery of events. Events that are in the queue are not delivered."""
        self._is_closed = True
        self._wake.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._go, name="stepwell-picture", daemon=True)
                self._thread.start()

    def _go(self) -> None:
        while self._wake.wait() and not self._is_closed:
            self._wake.clear()
            events = [self._waiting.popleft() for _ in range(len(self._waiting))]
            started = time.monotonic()
            try:
                if events:
                    self._deliver(events)
            except Exception:
                # The thread must go on: the next delivery updates the whole picture.
                logging.getLogger("stepwell").exception("an event could not be shown in the picture of the lineage")
            time.sleep(max(INTERVAL, 5 * (time.monotonic() - started)))


_UNFINISHED = ("queued", "running")
_NO_RUN: dict[str, Any] = {"active": False, "words": ""}


class Overlay:
    """The states of the cards of a lineage during runs: the states that the session computed, changed by the events of runs.

    Parameters
    ----------
    lineage
        The cards with the states that the session computed.
    """

    def __init__(self, lineage: Lineage) -> None:
        self.run: dict[str, Any] = _NO_RUN
        self._states_in_run: dict[str, dict[str, Any]] = {}
        self._requested_steps: set[str] = set()
        self._tracebacks: dict[str, str] = {}
        self._runs: dict[str, bool] = {}
        """The active runs. The key of each is its id. The item is True if the steps of the run have cards; False for the run of a job, whose steps
        have no cards, although their keys may be keys of assets."""
        self.replace_lineage(lineage)

    def replace_lineage(self, lineage: Lineage) -> None:
        """Show the cards and states of `lineage` from now on. During a run, the cards of queued and running steps keep their states."""
        self.lineage = lineage
        self._nodes = {node.key: node for node in lineage.nodes}
        self._states_in_run = {
            key: state
            for key, state in self._states_in_run.items()
            if self._runs and state["status"] in _UNFINISHED and key in self._nodes
        }
        failed = {node.key for node in lineage.nodes if node.state == "failed"}
        self._tracebacks = {key: text for key, text in self._tracebacks.items() if key in failed}

    def show_requested(self, steps: Iterable[str]) -> None:
        """Show `steps`, which the user requested with buttons, as queued until events report their states.

        Each call replaces the steps of the previous call.
        """
        self._requested_steps = set(steps)

    def take(self, event: Event) -> bool:
        """Change the states of cards according to `event`.

        Return True if the event may have changed states that only the session can compute, so that the caller must read the lineage of the session again.
        """
        if isinstance(event, RunStarted):
            assets = self._runs[event.run.run_id] = event.run.kind == "assets"
            self._say(event.run.run_id, f"{len(event.steps)} step{'s' * (len(event.steps) != 1)} queued")
            for key in event.steps if assets else event.run.targets:
                self._lay(
                    key,
                    {"status": "queued", "footer": ["Queued"]}
                    if assets
                    else {"status": "running", "footer": ["Running", {"since": time.time()}]},
                )
            return False
        if isinstance(event, StepStarted):
            self._say(event.run_id, f"{event.position} of {event.total} · {event.key}")
            footer: list[Part] = ["Running", {"since": time.time()}]
            if event.expected_seconds is not None:
                footer.append(f"last time {duration(event.expected_seconds)}")
            if self._runs.get(event.run_id):
                self._lay(event.key, {"status": "running", "footer": footer})
            return False
        if isinstance(event, StepWaiting):
            claimant = event.claimant.notebook.rpartition("/")[2] or "another process"
            self._say(event.run_id, f"{event.position} of {event.total} · {event.key} waits for {claimant}")
            if self._runs.get(event.run_id):
                self._lay(event.key, {"status": "queued", "footer": ["Waiting", f"for {claimant}"]})
            return False
        if isinstance(event, StepFinished):
            # This event comes from the catalog's thread. Should it arrive after `RunFinished`, which contains the same record, it is ignored.
            if self._runs.get(event.step.run_id):
                self._finish_step(event.step)
            return False
        if isinstance(event, RunFinished):
            if self._runs.pop(event.run.run_id, False):
                for step in event.steps:
                    self._finish_step(step)
            if not self._runs:
                self.run = _NO_RUN
                self._states_in_run = {
                    key: state for key, state in self._states_in_run.items() if state["status"] not in _UNFINISHED
                }
            return True
        return isinstance(event, DefinitionsChanged)

    def states(self) -> dict[str, dict[str, Any]]:
        """Return a dict from the key of each card to its present state, as JSON values for the browser."""
        states = {}
        for key, node in self._nodes.items():
            state = node_state(node)
            if key in self._states_in_run:
                state |= self._states_in_run[key]
            elif key in self._requested_steps:
                state |= {"status": "queued", "footer": ["Queued"]}
            if state["status"] == "failed" and key in self._tracebacks:
                state["traceback"] = self._tracebacks[key]
            state["symbol"] = SYMBOLS[state["status"]]
            states[key] = state
        return states

    def status_counts(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the counts that the header of the widget shows, as JSON values.

        The result contains the number of all steps, and the number of those assets that a run could make fresh. For each status that needs
        attention, it also contains a text with the number of steps that have this status.

        Parameters
        ----------
        states
            The present states of the cards (`states`).
        """
        steps = [states[node.key]["status"] for node in self.lineage.nodes if node.state is not None]
        chips = [
            [status, f"{SYMBOLS[status]} {number} {status}"] for status, number in counts(steps).items() if status in ATTENTION
        ]
        return {"steps": len(steps), "outdated": len(self.outdated()), "chips": chips}

    def group_words(self, states: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
        """Return a dict from the key of each graph-backed asset to the text in the header of its box.

        `states` are the present states of the cards.
        """
        return {
            parent: group_words([states[node.key]["status"] for node in nodes])
            for parent, nodes in members(self.lineage.nodes).items()
        }

    def stopping(self, run_id: str) -> None:
        """Show that the run `run_id` is being cancelled; do nothing if it is not active."""
        if run_id in self._runs:
            self._say(run_id, "Cancelling…")

    def outdated(self) -> list[str]:
        """Return the keys of the assets that a run could make fresh, except assets that the current run has already made fresh."""
        fresh = {key for key, state in self._states_in_run.items() if state["status"] == "fresh"}
        return outdated(Lineage(tuple(node for node in self.lineage.nodes if node.key not in fresh), ()))

    def assets_of(self, key: str) -> list[str]:
        """Return the keys of the assets to which the card with the key `key` belongs; only `key` itself if there is no such card."""
        return assets_of(self._nodes[key]) if key in self._nodes else [key]

    def steps_of(self, assets: Iterable[str]) -> list[str]:
        """Return the keys of the steps that compute `assets` or help to compute them."""
        wanted = set(assets)
        return [node.key for node in self.lineage.nodes if wanted.intersection(assets_of(node))]

    def _say(self, run_id: str, words: str) -> None:
        self.run = {"active": True, "words": words, "id": run_id}

    def _lay(self, key: str, state: dict[str, Any]) -> None:
        if key in self._nodes:
            self._states_in_run[key] = state

    def _finish_step(self, step: StepRecord) -> None:
        key = step.key
        self._states_in_run.pop(key, None)
        if key not in self._nodes:
            return
        if step.status in {"executed", "reused"}:
            self._tracebacks.pop(key, None)
            self._states_in_run[key] = _end_state(self._nodes[key], step)
        elif step.status == "failed":
            error = f"{step.error.name}: {step.error.message}" if step.error else "failed"
            self._states_in_run[key] = {"status": "failed", "footer": ["Failed", error], "error": error}
            if step.error and step.error.traceback:
                self._tracebacks[key] = step.error.traceback


def _end_state(node: LineageNode, step: StepRecord) -> dict[str, Any]:
    materialization = next((m for m in step.materializations if m.key == node.key), None) or next(
        iter(step.materializations), None
    )
    if materialization is not None and materialization.unverifiable:
        return {
            "status": "unverifiable",
            "footer": ["Unverifiable", materialization.unverifiable[0]],
            "reason": materialization.unverifiable[0],
            "error": "",
        }
    footer: list[Part] = ["Fresh"]
    footer += (
        [{"at": materialization.created}, duration(materialization.seconds)]
        if materialization is not None
        else [{"at": time.time()}]
    )
    state: dict[str, Any] = {"status": "fresh", "footer": footer, "reason": "", "error": ""}
    value_summary = materialization.value.summary if materialization is not None and materialization.value is not None else ""
    if value_summary and not node.assets and not node.summary.startswith(value_summary):
        state["summary"] = value_summary
    return state


_HERE = pathlib.Path(__file__).parent


class LineageWidget(anywidget.AnyWidget):
    """The widget that shows the live lineage of a session.

    Parameters
    ----------
    source
        The session.
    keys
        The keys of the assets, steps and jobs to show together with everything upstream of them; None for everything.
    lineage
        The lineage to show first; None to read it from the session.
    """

    _esm = _HERE / "lineage.js"
    _css = (_HERE / "lineage.css").read_text(encoding="utf-8") + status_style()

    svg = traitlets.Unicode().tag(sync=True)
    details = traitlets.Dict().tag(sync=True)
    nodes = traitlets.Dict().tag(sync=True)
    groups = traitlets.Dict().tag(sync=True)
    counts = traitlets.Dict().tag(sync=True)
    run = traitlets.Dict().tag(sync=True)
    problem = traitlets.Dict().tag(sync=True)
    selection = traitlets.Unicode().tag(sync=True)
    note = traitlets.Unicode().tag(sync=True)

    def __init__(self, source: Session, keys: Sequence[str] | None = None, lineage: Lineage | None = None) -> None:
        self._lock = threading.RLock()
        self._source = source
        self._keys = keys
        self._overlay = Overlay(Lineage((), ()))
        self._requests: dict[str, tuple[str, str]] = {}
        self._handled: set[str] = set()
        self._performing = ""
        self._stop_reason = ""
        self._refreshing = False
        self._cost = 0.0
        super().__init__()
        _route_requests(self.comm, self._receive)
        self.on_msg(self._receive)
        self.refresh(lineage)
        self._paced = Paced(self._deliver)
        self._unsubscribe = source.subscribe(self._paced.put)

    def refresh(self, lineage: Lineage | None = None) -> None:
        """Draw a lineage and send the picture to the browser. If the lineage cannot be read or drawn, keep the previous picture and show the error.

        Parameters
        ----------
        lineage
            The lineage to draw; None to read the present lineage of the session.
        """
        self._refreshing = False
        started = time.monotonic()
        try:
            lineage = lineage or upstream_of(self._source.inspect().lineage(), self._keys)
            geometry = layout(lineage)
            drawn = lineage_svg(lineage, geometry=geometry, live=True)
        except Exception as error:
            # A definition is invalid, for example. The previous picture stays.
            with self._lock:
                self.problem = escaped_json(_problem(error, "the lineage cannot be drawn"))
            return
        finally:
            self._cost = time.monotonic() - started
        with self._lock, self.hold_sync():
            self._overlay.replace_lineage(lineage)
            self.svg, self.note, self.details = drawn, printable(geometry.note), escaped_json(_details(lineage))
            if self.selection not in self.details:
                self.selection = ""
            self._publish()

    def close(self) -> None:
        """Stop following the events of the session, and close the widget."""
        if hasattr(self, "_paced"):
            self._unsubscribe()
            self._paced.close()
        super().close()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Apply changes of traits that the browser sends, such as the selection. First wait until no other thread is sending states to the browser."""
        with self._lock:
            super().set_state(sync_data)

    def _repr_mimebundle_(self, **kwargs: object) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)  # type: ignore[arg-type]  # anywidget annotates the mapping instead of a value
        still = static_bundle(self._overlay.lineage)
        if not bundle:
            return still
        data, metadata = bundle
        return {**data, **still}, metadata

    def live_bundle(self) -> dict[str, Any]:
        """Return a MIME bundle that shows only the live picture. `show` displays the static picture as a separate output."""
        bundle = super()._repr_mimebundle_()
        data: dict[str, Any] = dict(bundle[0]) if bundle else {}
        data.pop("text/html", None)
        return {**data, "text/plain": f"Lineage (live): {headline(self._overlay.lineage)}"}

    # -- from the session

    def _deliver(self, events: list[Event]) -> None:
        with self._lock:
            for event in events:
                if isinstance(event, RunStarted) and self._stop_reason and self._stop_reason == self._performing:
                    # The user cancelled the request before the run of the request began.
                    self._source.cancel(event.run.run_id)
            changed = [self._overlay.take(event) for event in events]
            self._publish()
            ask = any(changed) and not self._refreshing
            self._refreshing = self._refreshing or ask
        if ask:
            # Reading the states of a large notebook takes long. Wait four times as long as the last refresh took; the kernel can then do other work.
            _call_between_cells(self.refresh, delay=min(4 * self._cost, 10.0))

    def _publish(self) -> None:
        with self._lock, self.hold_sync():
            self._overlay.show_requested(step for action, key in self._requests.values() for step in self._steps(action, key))
            states = self._overlay.states()
            self.nodes = escaped_json(states)
            self.groups = escaped_json(self._overlay.group_words(states))
            self.counts = self._overlay.status_counts(states)
            self.run = escaped_json({**self._overlay.run, "waiting": len(self._requests)})

    # -- from the browser

    def _receive(self, _widget: object, content: Any, _buffers: object) -> None:
        kind = content.get("type") if isinstance(content, dict) else None
        if kind == "cancel":
            self._cancel(str(content.get("id")), str(content.get("run", "")))
        elif kind in {"ask", "go"}:
            request, action, key = str(content.get("id")), str(content.get("action")), str(content.get("key", ""))
            with self._lock:
                if request in self._handled:
                    return
                self._requests[request] = (action, key)
            self._publish()
            if kind == "go":
                self._perform(request, action, key)

    def _cancel(self, cancel: str, run_id: str) -> None:
        with self._lock:
            if cancel in self._handled:
                return
            self._handled.update([cancel, *self._requests])
            self._requests.clear()
            # While this thread holds the lock, the active request cannot end, and no other request can start a run.
            if self._performing:
                self._stop_reason = self._performing
                self._source.cancel()
            elif run_id:
                self._source.cancel(run_id)
            self._overlay.stopping(self._overlay.run.get("id", "") if self._performing else run_id)
        self._publish()

    def _perform(self, request: str, action: str, key: str) -> None:
        with self._lock:
            if request in self._handled:
                return
            self._handled.add(request)
            self._performing = request
            self.problem = problem = {}
        try:
            if action == "rerun":
                self._source.rerun([key])
            elif action == "materialize":
                self._source.materialize(self._overlay.assets_of(key))
            elif action == "materialize-outdated":
                self._source.materialize(self._overlay.outdated())
        except KeyboardInterrupt:
            problem = {
                "title": "Cancelled",
                "text": "The values of finished steps are kept. The step that was running is recorded as cancelled.",
                "tone": "plain",
            }
        except Exception as error:
            problem = escaped_json(_problem(error, ""))
        finally:
            with self._lock:
                self.problem = problem
                self._requests.pop(request, None)
                self._performing = ""
            self.refresh()

    def _steps(self, action: str, key: str) -> list[str]:
        if action == "rerun":
            return [key]
        return self._overlay.steps_of(self._overlay.assets_of(key) if action == "materialize" else self._overlay.outdated())


def escaped_json(value: Any) -> Any:
    """Return the JSON value `value` with control characters and invisible characters escaped in all its strings and keys."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(key): escaped_json(member) for key, member in value.items()}
    return [escaped_json(member) for member in value] if isinstance(value, list | tuple) else value


def _details(lineage: Lineage) -> dict[str, dict[str, str]]:
    """Return a dict from the key of each card to what the side panel shows, except the parts that depend on the card's state."""
    return {
        node.key: {
            "what": _kind_and_place(node),
            "step": "" if node.state is None else node.key,
            "parent": node.parent,
            "description": node.description,
            "code": node.code,
        }
        for node in lineage.nodes
    }


def _kind_and_place(node: LineageNode) -> str:
    """Return the kind, group and source location of a card, for example ``op in graph-backed asset report · group daily · cell 14``."""
    kind = KINDS.get(node.kind, node.kind) + (f" in graph-backed asset {node.parent}" if node.parent else "")
    return " · ".join(part for part in (kind, f"group {node.group}" if node.group != "default" else "", node.where) if part)


def _problem(error: BaseException, title: str) -> dict[str, str]:
    """Return the title and the text of the panel that shows `error`.

    Parameters
    ----------
    title
        Words before the error in the title, such as ``the lineage cannot be drawn``; empty if a step failed.
    """
    if isinstance(error, StepwellError):
        first, *rest = str(error).splitlines() or [type(error).__name__]
        return {"title": ": ".join(part for part in (title, first) if part), "text": "\n".join(rest)}
    head = f"{type(error).__name__}: {error}".splitlines()[0]
    notes = getattr(error, "__notes__", None)
    if notes and not title:
        # A step failed: the note of the exception names the step, and the card of the step shows the traceback.
        return {"title": head, "text": "\n".join(notes)}
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_stepwells(frame.filename)]
    lines = [*traceback.format_list(frames), *traceback.format_exception_only(error)]
    return {"title": ": ".join(part for part in (title, head) if part), "text": "".join(lines)}


def _is_stepwells(filename: str) -> bool:
    return pathlib.Path(filename).is_relative_to(_HERE.parent)


def _route_requests(comm: Any, receive: Callable[[object, Any, object], None]) -> None:
    """Make ipykernel handle the messages ``ask`` and ``cancel`` while a cell runs, and all other messages of the widget between cells.

    By default, ipykernel handles the messages of a comm on the thread that last sent something on the comm. Here, this is the main thread, which is
    busy while a cell runs. A private method of the comm selects the thread, and this function replaces that method. If a version of ipykernel
    lacks the method, all messages are handled between cells, so that only an interrupt of the kernel cancels a run.

    ipykernel calls the replacement on the thread that receives messages. If the front end uses subshells, ipykernel then handles ``ask`` and
    ``cancel`` on another thread. Otherwise there is no other thread, and the replacement itself calls `receive`.

    Parameters
    ----------
    comm
        The comm of the widget.
    receive
        Handles a message of the widget.
    """
    if not hasattr(comm, "_reply_subshell_for"):
        return

    def route(data: Any, default: Any) -> Any:
        content = data.get("content") if isinstance(data, dict) else None
        if not isinstance(content, dict) or content.get("type") not in {"ask", "cancel"}:
            return None
        if default is None:
            # The main thread gets the same message later. The message then has no effect, because its id is known.
            try:
                receive(None, content, None)
            except Exception:
                logging.getLogger("stepwell").exception(
                    "a request of the lineage widget failed while a cell ran; it is handled again after the cell"
                )
        return default

    comm._reply_subshell_for = route  # noqa: SLF001 - guarded above and covered by a browser test


def _call_between_cells(callback: Callable[[], None], *, delay: float) -> None:
    """Call `callback` on the main thread of the kernel, between cells, after at least `delay` seconds. Outside of a kernel, call it immediately."""
    try:
        from IPython import get_ipython
    except ImportError:
        callback()
        return
    loop = getattr(getattr(get_ipython(), "kernel", None), "io_loop", None)
    if loop is None:
        callback()
    else:
        loop.add_callback(loop.call_later, delay, callback)
