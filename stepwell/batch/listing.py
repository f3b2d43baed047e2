"""What a store holds, as lines for a reader or as one JSON object, without any of the code that made it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from stepwell.kernel_runtime.store.store import Store
from stepwell.kernel_runtime.text import as_json, in_one_line, size_text


def current_lines(store: Store) -> list[str]:
    """Return one line a key: what is current, since when, and which notebook defined it."""
    rows = []
    for each in store.all_current():
        made = each.materialization
        rows.append((each.key, made.value.summary if made.value else "-", _time(made.created), each.notebook))
    lines = _table(rows) or [f"nothing is stored in {store.directory} yet"]
    sizes = store.sizes()
    total = size_text(sizes["object_bytes"] + sizes["catalog_bytes"])
    return [*lines, f"{store.directory}: {sizes['materializations']:,} materializations, {total}"]


def current_as_json(store: Store) -> list[str]:
    """Return ``{"store", "assets": [{"key", "notebook", "created", "seconds", "type", "summary"}], "sizes"}``."""
    assets = []
    for each in store.all_current():
        made = each.materialization
        assets.append(
            {
                "key": each.key,
                "notebook": each.notebook,
                "created": made.created,
                "seconds": made.seconds,
                "type": made.value.type_name if made.value else None,
                "summary": made.value.summary if made.value else None,
            }
        )
    return [as_json({"store": str(store.directory), "assets": assets, "sizes": store.sizes()}, indent=2)]


def sizes_lines(store: Store) -> list[str]:
    """Return one line a key: what it takes, in how many versions; the largest first."""
    rows = [(each.key, size_text(each.bytes), f"{each.versions:,} versions") for each in store.key_sizes()]
    sizes = store.sizes()
    rows.append(("value files", size_text(sizes["object_bytes"]), f"{sizes['objects']:,} files"))
    rows.append(("catalog", size_text(sizes["catalog_bytes"]), f"{sizes['materializations']:,} materializations"))
    return _table(rows)


def sizes_as_json(store: Store) -> list[str]:
    """Return ``{"store", "sizes": {...}, "keys": [{"key", "bytes", "versions"}]}``."""
    keys = [{"key": each.key, "bytes": each.bytes, "versions": each.versions} for each in store.key_sizes()]
    return [as_json({"store": str(store.directory), "sizes": store.sizes(), "keys": keys}, indent=2)]


def runs_lines(store: Store, *, limit: int) -> list[str]:
    """Return one line a run, newest first."""
    rows = [
        (run.run_id, run.status, _time(run.started), ", ".join(run.targets), run.notebook)
        for run in store.runs(limit=limit)
    ]
    return _table(rows) or [f"nothing was run with {store.directory} yet"]


def runs_as_json(store: Store, *, limit: int) -> list[str]:
    """Return ``{"store", "runs": [{"run_id", "status", "started", "ended", "targets", "notebook", "batch"}]}``."""
    runs = [
        {
            "run_id": run.run_id,
            "status": run.status,
            "started": run.started,
            "ended": run.ended,
            "targets": list(run.targets),
            "notebook": run.notebook,
            "batch": run.batch,
        }
        for run in store.runs(limit=limit)
    ]
    return [as_json({"store": str(store.directory), "runs": runs}, indent=2)]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [tuple(map(in_one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
