"""Records for the tests of the catalog."""

import time

from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import Current, InputVersion, Materialization, Read
from stepwell.kernel_runtime.records.runs import ErrorRecord, RunRecord, StepRecord

NOTEBOOK = "/project/n.ipynb"


def run(run_id=None, *, status="running", kind="assets", **more):
    return RunRecord(run_id or new_id(), kind, NOTEBOOK, ("a", "b"), status, time.time(), **more)


def made(
    store,
    key,
    value=1,
    *,
    run_id="run",
    memo_key="m1",
    code="c1",
    output="result",
    notebook=NOTEBOOK,
    asset=None,
    **more,
):
    stored = store.put(value, key=key, memo_key=memo_key)
    return Materialization(
        new_id(), run_id, asset or key, key, output, notebook, memo_key, code, stored.digest, stored, time.time(), 0.25,
        inputs=(InputVersion("x", "up", "d1"), InputVersion("", "order", "id", "order")),
        reads=(Read("file", "/data.csv", "d2", (1, 2, 3, 4)),),
        unverifiable=("a -> CONN",),
        metadata={"rows": 5, "nested": [1, {"x": None}]},
        **more,
    )  # fmt: skip


def executed(*materializations):
    first = materializations[0]
    return StepRecord(
        first.run_id,
        first.step_key,
        "executed",
        first.created,
        first.seconds,
        first.memo_key,
        materializations,
        reason="new",
    )


def failed(key, *, run_id="run", memo_key="m1"):
    return StepRecord(
        run_id,
        key,
        "failed",
        time.time(),
        0.5,
        memo_key,
        error=ErrorRecord("KeyError", "'x'", "Traceback ...", "cell 3, line 1"),
    )


def record(store, *materializations, **more):
    return store.record_step(
        executed(*materializations),
        current=[Current(m.notebook, m.key, m, m.partition) for m in materializations],
        **more,
    )
