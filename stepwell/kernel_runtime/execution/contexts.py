"""What a step's body sees of its run, as ``context``."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from stepwell.kernel_runtime.errors import InvariantViolationError
from stepwell.kernel_runtime.planning.plan import PlanStep
from stepwell.kernel_runtime.records.keys import AssetKey
from stepwell.kernel_runtime.records.runs import LogRecord


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
    """What an op's function is given as its parameter ``context``."""

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
        """A logger whose lines are kept with the run: ``%stepwell logs`` shows them."""
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
        """Names of the outputs that are asked for: all of them."""
        return {output.name for output in self._step.outputs}

    def add_output_metadata(self, metadata: Mapping[str, Any], output_name: str | None = None) -> None:
        """Attach JSON values to the materialization of an output; the only one if there is one.

        Raises
        ------
        InvariantViolationError
            If the step has no such output, or several and none is named.
        """
        names = [output.name for output in self._step.outputs]
        if output_name is None and len(names) == 1:
            output_name = names[0]
        if output_name not in names:
            raise InvariantViolationError(
                f"step {self._step.key!r} adds metadata to {output_name or 'an output without a name'}",
                where=self._step.where,
                remedy=f"output_name= is one of: {', '.join(names) or 'none'}",
            )
        self.output_metadata.setdefault(output_name, {}).update(metadata)


class AssetExecutionContext(OpExecutionContext):
    """What an asset's function is given as its parameter ``context``."""

    @property
    def asset_key(self) -> AssetKey:
        """The key of the asset; the first of several."""
        return next(output.asset_key for output in self._step.outputs if output.asset_key is not None)

    @property
    def selected_asset_keys(self) -> set[AssetKey]:
        """Keys of the assets that are asked for."""
        return {output.asset_key for output in self._step.outputs if output.asset_key is not None}

    def asset_key_for_output(self, output_name: str = "result") -> AssetKey | None:
        """Return the key of the asset that an output is, or None."""
        return next((output.asset_key for output in self._step.outputs if output.name == output_name), None)

    add_asset_metadata = OpExecutionContext.add_output_metadata


def context_for(step: PlanStep, run_id: str, job_name: str, emit: Callable[[LogRecord], None]) -> OpExecutionContext:
    """Return the context of a step: an asset's or an op's."""
    kind = (
        AssetExecutionContext
        if any(output.asset_key is not None for output in step.outputs) and not job_name
        else OpExecutionContext
    )
    return kind(step, run_id, job_name or "__ephemeral_asset_job__", emit)
