"""The tables of the catalog, the conversion between rows and records, and the migration from older formats.

A run appends rows. It changes only two rows: the row of the run is replaced when the run ends, and each commit updates the one row of ``meta``,
under the lease. So DuckDB's appender can write all other rows, and two processes never change the same row at the same time. Within a table,
``rowid`` grows in the order of the commits, and the lease makes this order the same for all processes. So the *newest* row is always
the row with the highest ``rowid``, never the row with the latest time. Times are stored as seconds since the epoch, so that they are read back
exactly. Each column of times has a generated ``TIMESTAMP`` column in UTC, for people who query the catalog.

A row of the table ``current`` is a *pointer*: it says which materialization is current for a notebook, key and partition.

A catalog of an older format is copied, and then migrated in one transaction. If the process is killed before the commit, the old catalog is
intact, and the next process copies and migrates it again.
"""

from __future__ import annotations

import functools
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

from stepwell.kernel_runtime.errors import StoreDamagedError
from stepwell.kernel_runtime.records.keys import new_id
from stepwell.kernel_runtime.records.materializations import (
    CodePart,
    CodeVersion,
    Current,
    InputVersion,
    Materialization,
    Read,
    StoredValue,
    Unverifiable,
)
from stepwell.kernel_runtime.records.runs import CapturedOutput, ErrorRecord, LogRecord, RunRecord, StepRecord
from stepwell.kernel_runtime.store.folder import Folder
from stepwell.kernel_runtime.store.processes import is_gone

FORMAT = 3
"""The number of the catalog format that this version of Stepwell writes. A newer version may write a higher number."""

Row: TypeAlias = tuple[Any, ...]
"""The columns of a row of the catalog."""


def _time(column: str) -> str:
    """Return the definition of the generated ``TIMESTAMP`` column for a column of times."""
    return f"{column}_at TIMESTAMP GENERATED ALWAYS AS (make_timestamp((round({column} * 1000000))::BIGINT)) VIRTUAL"


_LONG = "USING COMPRESSION zstd"
"""The compression of columns with similar strings, for example successive versions of source code: the columns take a twentieth of the space
that they take with DuckDB's default compression."""

_RETENTION = "key VARCHAR, versions INTEGER, age DOUBLE, bytes BIGINT, changed DOUBLE, " + _time("changed")
"""The columns of the table of retention rules. The newest row of a key is the rule in force; the rule of the whole store has an empty key."""

TABLES = {
    "meta": "format INTEGER, store_id VARCHAR, created DOUBLE, commits BIGINT, " + _time("created"),
    "runs": "run_id VARCHAR, kind VARCHAR, notebook VARCHAR, targets VARCHAR, status VARCHAR, started DOUBLE, ended DOUBLE, "
    "batch VARCHAR, parent_run_id VARCHAR, root_run_id VARCHAR, error VARCHAR, process VARCHAR, "
    + _time("started")
    + ", "
    + _time("ended"),
    "steps": "run_id VARCHAR, key VARCHAR, status VARCHAR, started DOUBLE, seconds DOUBLE, memo_key VARCHAR, "
    "materializations VARCHAR, error VARCHAR, reason VARCHAR, not_kept VARCHAR, " + _time("started"),
    "materializations": "id VARCHAR, run_id VARCHAR, key VARCHAR, step_key VARCHAR, output VARCHAR, notebook VARCHAR, memo_key VARCHAR, "
    "code_version VARCHAR, data_version VARCHAR, codec VARCHAR, digest VARCHAR, size BIGINT, inline BLOB, object_name VARCHAR, "
    "signature BLOB, type_name VARCHAR, summary VARCHAR, classes VARCHAR, created DOUBLE, seconds DOUBLE, partition VARCHAR, "
    "inputs VARCHAR, reads VARCHAR, unverifiable VARCHAR, metadata VARCHAR, effects VARCHAR, record_signature BLOB, "
    + _time("created"),
    "current": "notebook VARCHAR, key VARCHAR, partition VARCHAR, materialization VARCHAR, moved DOUBLE, " + _time("moved"),
    "code_versions": f"digest VARCHAR, parts VARCHAR {_LONG}",
    "outputs": "run_id VARCHAR, step_key VARCHAR, kind VARCHAR, stream VARCHAR, "
    f"text VARCHAR {_LONG}, data VARCHAR {_LONG}, metadata VARCHAR",
    "logs": "run_id VARCHAR, step_key VARCHAR, time DOUBLE, level VARCHAR, message VARCHAR, " + _time("time"),
    "retention": _RETENTION,
}
"""Maps the name of each table to the definitions of its columns."""

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (f"CREATE TABLE @retention ({_RETENTION})", "ALTER TABLE @meta ADD COLUMN commits BIGINT DEFAULT 0"),
    2: (
        "ALTER TABLE @materializations ADD COLUMN effects VARCHAR DEFAULT ''",
        "ALTER TABLE @materializations ADD COLUMN record_signature BLOB",
        "ALTER TABLE @runs ADD COLUMN process VARCHAR DEFAULT ''",
    ),
}
"""Maps each older format to the statements that migrate a catalog to the next format; ``@`` stands for the name of the catalog and a dot."""

MATERIALIZATION_COLUMNS = (
    "id, run_id, key, step_key, output, notebook, memo_key, code_version, data_version, codec, digest, size, inline, object_name, "
    "signature, type_name, summary, classes, created, seconds, partition, inputs, reads, unverifiable, metadata, effects, record_signature"
)
RUN_COLUMNS = "run_id, kind, notebook, targets, status, started, ended, batch, parent_run_id, root_run_id, error, process"
STEP_COLUMNS = "run_id, key, status, started, seconds, memo_key, materializations, error, reason, not_kept"


def create_statements(catalog: str) -> list[str]:
    """Return the statements that create all tables in the attached, empty catalog with the name ``catalog``."""
    return [f"CREATE TABLE {catalog}.{table} ({columns})" for table, columns in TABLES.items()]


# -- JSON columns: most lists in them are empty, so an empty list is read without a parser ---------------------------

_encode = json.JSONEncoder(separators=(",", ":"), default=repr).encode
_quoted: Callable[[str], str] = json.encoder.encode_basestring_ascii
"""Encodes one string as JSON. Encoding the strings of a list with this function and joining them with `_list` takes a tenth of the time that
`_encode` takes for the list."""
_raw = json.JSONDecoder().raw_decode


def _decode(text: str) -> Any:
    """Return the value of a JSON text that does not begin with white space. Characters after the JSON value are ignored."""
    return _raw(text)[0]


def _list(items: Iterable[str]) -> str:
    """Return a JSON array of ``items``, each of which is JSON text already."""
    return f"[{','.join(items)}]"


def _texts(values: Sequence[str]) -> str:
    """Encode strings as a JSON array."""
    return _list(map(_quoted, values)) if values else "[]"


def _tuple(text: str) -> tuple[str, ...]:
    """Decode a JSON array of strings; raise `TypeError` for any other JSON value."""
    return () if text == "[]" else tuple(_checked_strings(_decode(text)))


# -- checks of rows, because a catalog can come from another person --------------------------------------------------

LATEST = 253_402_300_800
"""The end of the year 9999 in seconds since the epoch. `datetime` cannot display later times."""
_UNREADABLE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OverflowError)
_T = TypeVar("_T")


def _checked_strings(texts: Any) -> list[str]:
    """Return ``texts`` if it is a list of strings; raise `TypeError` if it is anything else."""
    if type(texts) is not list or not all([type(text) is str for text in texts]):  # noqa: C419 - a list is faster for a few items
        raise TypeError("a column is not a list of strings")
    return texts


def _check_texts(values: Sequence[Any]) -> None:
    """Raise `TypeError` if a value is not a string, or if there are no values."""
    if set(map(type, values)) != _TEXT:
        raise TypeError("a column is not a string")


_TEXT = {str}


def _moment(seconds: Any) -> float:
    """Return a time or a duration as a float; raise `ValueError` if it is negative, or later than the year 9999."""
    if not 0 <= seconds < LATEST:
        raise ValueError("a time is out of range")
    return float(seconds)


def _reader(what: str) -> Callable[[Callable[[Row], _T]], Callable[[Row], _T]]:
    """Return a decorator for a function that converts a row to a record.

    The decorated function raises `StoreDamagedError` if a column of the row has a value that Stepwell never writes. The message names the
    record by ``what`` (for example ``the run``) and by the first column of the row.
    """

    def decorate(read: Callable[[Row], _T]) -> Callable[[Row], _T]:
        @functools.wraps(read)
        def reading(row: Row) -> _T:
            try:
                return read(row)
            except _UNREADABLE as error:
                raise _unreadable(f"{what} {row[0]!r}", error) from error

        return reading

    return decorate


def _unreadable(what: str, error: Exception) -> StoreDamagedError:
    """Return the error with the message ``the record of WHAT cannot be read``."""
    return StoreDamagedError(
        f"the record of {what[:200]} cannot be read: the catalog was changed or damaged",
        where=type(error).__name__,
        remedy="restore the catalog from a backup, or move the store directory away and compute its values again",
    )


def _error_text(error: ErrorRecord | None) -> str | None:
    """Encode the record of a user's exception for the column ``error``. If there is no record, return None, which is stored as NULL."""
    return None if error is None else _encode((error.name, error.message, error.traceback, error.where))


def error_record(text: str | None) -> ErrorRecord | None:
    """Decode the column ``error``; return None if it is NULL. Raise `StoreDamagedError` if it cannot be decoded."""
    try:
        return None if text is None else ErrorRecord(*_checked_strings(_decode(text)))
    except _UNREADABLE as error:
        raise _unreadable("an exception", error) from error


# -- materializations ------------------------------------------------------------------------------------------------

_NO_VALUE = (None,) * 9


def materialization_row(m: Materialization) -> Row:
    """Return the row of a materialization."""
    v = m.value
    value = (
        _NO_VALUE
        if v is None
        else (
            v.codec,
            v.digest,
            v.size,
            v.inline,
            v.object_name,
            v.signature,
            v.type_name,
            v.summary,
            _encode(v.classes) if v.classes else "[]",
        )
    )
    return (
        m.id, m.run_id, m.key, m.step_key, m.output, m.notebook, m.memo_key, m.code_version, m.data_version,
        *value,
        m.created, m.seconds, m.partition,
        _list([_texts((i.name, i.key, i.version, i.kind)) for i in m.inputs]) if m.inputs else "[]",
        _encode([_read_columns(r) for r in m.reads]) if m.reads else "[]",
        _texts(m.unverifiable),
        _encode(m.metadata) if m.metadata else "{}",
        m.effects, m.record_signature,
    )  # fmt: skip


def _read_columns(read: Read) -> tuple[Any, ...]:
    """Return the fields of a read for the column ``reads``. ``names`` and ``own_names`` are omitted if both are empty."""
    columns = (read.kind, read.name, read.digest, read.stat)
    return (*columns, read.names, read.own_names) if read.names or read.own_names else columns


def materialization(row: Row) -> Materialization:
    """Convert a row with `MATERIALIZATION_COLUMNS` to a materialization.

    Raises
    ------
    StoreDamagedError
        If a column has a value that Stepwell never writes.
    """
    try:
        return _materialization(row)
    except _UNREADABLE as error:
        raise _unreadable(f"{row[2]!r}, materialization {row[0]!r},", error) from error


def _materialization(row: Row) -> Materialization:
    codec = row[9]
    value = None
    if codec is None:
        _check_texts(row[:9])
    else:
        classes = row[17]
        _check_texts((*row[:11], row[15], row[16]))
        if type(row[11]) is not int or row[11] < 0:
            raise TypeError("a size is not a whole number of at least 0")
        value = StoredValue(
            codec, row[10], row[11], row[12], row[13], row[14], row[15], row[16],
            () if classes == "[]" else tuple((name, version) for name, version in map(_checked_strings, _decode(classes))),
        )  # fmt: skip
    inputs, reads, metadata = row[21], row[22], {} if row[24] == "{}" else _decode(row[24])
    if type(metadata) is not dict:
        raise TypeError("the metadata are not a JSON object")
    return Materialization(
        row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8], value, _moment(row[18]), _moment(row[19]), row[20],
        () if inputs == "[]" else tuple([InputVersion(*_checked_strings(fields)) for fields in _decode(inputs)]),  # type: ignore[arg-type]  # the kind is one of two texts
        () if reads == "[]" else tuple([_read_of(fields) for fields in _decode(reads)]),
        _tuple(row[23]), metadata, row[25] or "", row[26],
    )  # fmt: skip


def _read_of(fields: list[Any]) -> Read:
    """Return the read whose fields `_read_columns` returned."""
    _check_texts(fields[:3])
    return Read(*fields[:3], *map(tuple, fields[3:]))


# -- the other tables ------------------------------------------------------------------------------------------------


def run_row(run: RunRecord) -> Row:
    """Return the row of a run."""
    return (
        run.run_id, run.kind, run.notebook, _texts(run.targets), run.status, run.started, run.ended,
        run.batch, run.parent_run_id, run.root_run_id, _error_text(run.error), run.process,
    )  # fmt: skip


@_reader("the run")
def run_record(row: Row) -> RunRecord:
    """Convert a row with `RUN_COLUMNS` to the record of a run.

    If the status is ``running`` but the process of the run has ended, the record has the status ``interrupted``.
    """
    run_id, kind, notebook, targets, status, started, ended, batch, parent, root, error, process = row
    _check_texts((run_id, kind, notebook, status, batch, parent, root, process or ""))
    if status == "running" and process and is_gone(process):
        status = "interrupted"
    return RunRecord(
        run_id,
        kind,
        notebook,
        _tuple(targets),
        status,
        _moment(started),
        None if ended is None else _moment(ended),
        batch,
        parent,
        root,
        error_record(error),
        process or "",
    )


def step_row(step: StepRecord) -> Row:
    """Return the row of a step. It contains the ids of the step's materializations, not their records."""
    results = step.materializations
    # Ids are hexadecimal, so they need no escaping in JSON.
    ids = f'["{results[0].id}"]' if len(results) == 1 else _encode([m.id for m in results]) if results else "[]"
    return (
        step.run_id, step.key, step.status, step.started, step.seconds, step.memo_key, ids,
        None if step.error is None else _error_text(step.error), step.reason, _texts(step.not_kept),
    )  # fmt: skip


@_reader("a step of run")
def step_materializations(row: Row) -> tuple[str, ...]:
    """Return the ids of a step's materializations from a row with `STEP_COLUMNS`."""
    return _tuple(row[6])


def step_record(row: Row, known: dict[str, Materialization]) -> StepRecord:
    """Convert a row with `STEP_COLUMNS` to the record of a step.

    ``known`` contains materializations by id. If a materialization of the step is missing in it, the record of the step omits it.
    """
    materializations = tuple(known[id_] for id_ in step_materializations(row) if id_ in known)
    return replace(_step_record(row), materializations=materializations)


@_reader("a step of run")
def _step_record(row: Row) -> StepRecord:
    run_id, key, status, started, seconds, memo_key, _, error, reason, not_kept = row
    _check_texts((run_id, key, status, memo_key, reason))
    return StepRecord(
        run_id,
        key,
        status,
        _moment(started),
        _moment(seconds),
        memo_key,
        (),
        error_record(error),
        reason,
        _tuple(not_kept),
    )


def current_row(current: Current, moved: float) -> Row:
    """Return the row of a pointer. ``moved`` is the time when the pointer was set, in seconds since the epoch."""
    return current.notebook, current.key, current.partition, current.materialization.id, moved


def current_record(notebook: Any, key: Any, partition: Any, item: Materialization) -> Current:
    """Return the pointer that makes ``item`` current for a notebook, key and partition.

    The three arguments before ``item`` are columns of the pointer's row. Raise `StoreDamagedError` unless all three are strings.
    """
    try:
        _check_texts((notebook, key, partition))
    except TypeError as error:
        raise _unreadable(f"the current materialization of {key!r}", error) from error
    return Current(notebook, key, item, partition)


def code_row(code: CodeVersion) -> Row:
    """Return the row of a code version. The first column is the digest; the second one contains all other fields as JSON."""
    parts = [
        f"[{_quoted(p.path)},{_quoted(p.kind)},{_quoted(p.digest)},{_quoted(p.text) if p.text is not None else 'null'},{_quoted(p.where)}]"
        for p in code.parts
    ]
    unverifiable = [_texts((u.path, u.reason)) for u in code.unverifiable]
    return code.digest, (
        f'{{"parts":{_list(parts)},"unverifiable":{_list(unverifiable)},'
        f'"asset_names":{_list(map(_texts, code.asset_names))},"mutable_globals":{_texts(code.mutable_globals)}}}'
    )


@_reader("the code version")
def code_record(row: Row) -> CodeVersion:
    """Convert a row of the table ``code_versions`` to a code version."""
    fields = _decode(row[1])
    parts = tuple(CodePart(*part) for part in fields["parts"])
    for part in parts:
        _check_texts((part.path, part.kind, part.digest, part.text or "", part.where))
    return CodeVersion(
        row[0],
        parts,
        tuple(Unverifiable(*_checked_strings(texts)) for texts in fields["unverifiable"]),
        tuple((name, path) for name, path in map(_checked_strings, fields["asset_names"])),
        tuple(_checked_strings(fields["mutable_globals"])),
    )


def log_row(log: LogRecord) -> Row:
    """Return the row for a line that a step wrote to its log."""
    return log.run_id, log.step_key, log.time, log.level, log.message


def _marked_bytes(value: Any) -> Any:
    """Return the JSON form of a value that JSON cannot represent: ``{"__bytes__": BASE64}`` for bytes, the `repr` for anything else."""
    if isinstance(value, bytes | bytearray):
        return {"__bytes__": b64encode(value).decode("ascii")}
    return repr(value)


def _from_marked(fields: dict[str, Any]) -> Any:
    """Return the bytes that `_marked_bytes` has marked; any other JSON object unchanged."""
    return b64decode(fields["__bytes__"]) if set(fields) == {"__bytes__"} else fields


_encode_output: Callable[[Any], str] = json.JSONEncoder(separators=(",", ":"), default=_marked_bytes).encode
_decode_output: Callable[[str], Any] = json.JSONDecoder(object_hook=_from_marked).decode


def output_rows(run_id: str, step_key: str, outputs: Iterable[CapturedOutput]) -> list[Row]:
    """Return the rows of a step's captured outputs."""
    return [
        (
            run_id,
            step_key,
            o.kind,
            o.stream,
            o.text,
            _encode_output(o.data) if o.data else "{}",
            _encode_output(o.metadata) if o.metadata else "{}",
        )
        for o in outputs
    ]


@_reader("a captured output of the kind")
def output_record(row: Row) -> CapturedOutput:
    """Convert a row with the columns ``kind, stream, text, data, metadata`` to a captured output."""
    kind, stream, text, data, metadata = row
    _check_texts((kind, stream, text))
    bundle, more = _decode_output(data), _decode_output(metadata)
    if not (type(bundle) is dict and type(more) is dict):
        raise TypeError("the data of a display are not a JSON object")
    return CapturedOutput(kind, stream, text, bundle, more)


@_reader("a log line of run")
def log_record(row: Row) -> LogRecord:
    """Convert a row with the columns ``run_id, step_key, time, level, message`` to the record of a line in a log."""
    run_id, step_key, moment, level, message = row
    _check_texts((run_id, step_key, level, message))
    return LogRecord(run_id, step_key, _moment(moment), level, message)


def keep_copy(folder: Folder, number: int) -> None:
    """Copy the detached catalog of the store ``folder`` to ``catalog.format-NUMBER.duckdb``.

    ``number`` is the format of the catalog. Raise `OSError` if the copy fails.
    """
    making = f"tmp/{new_id()}.duckdb"
    folder.mkdir("tmp")
    try:
        folder.copy("catalog.duckdb", making)
        folder.sync(making)
        folder.rename(making, f"catalog.format-{number}.duckdb")
    finally:
        folder.unlink(making, missing_ok=True)


def migrate(connection: Any, name: str, number: int) -> None:
    """Migrate the attached catalog ``name`` from format ``number`` to `FORMAT` in one transaction.

    If a statement fails, raise the error of DuckDB; the transaction is then still open.
    """
    connection.begin()
    for older in range(number, FORMAT):
        for statement in MIGRATIONS[older]:
            connection.execute(statement.replace("@", f"{name}."))
    connection.execute("UPDATE @meta SET format = ?".replace("@", f"{name}."), [FORMAT])
    connection.commit()
