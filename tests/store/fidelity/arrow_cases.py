"""What is tried of pyarrow."""

import datetime as dt
import decimal
import functools
import math

import numpy as np
import pandas as pd
import pyarrow as pa

from .registered import case


class Labelled(pa.ExtensionType):
    def __init__(self, label):
        self.label = label
        super().__init__(pa.int16(), "stepwell.tests.labelled")

    def __arrow_ext_serialize__(self):
        return self.label.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        return cls(serialized.decode())


pa.register_extension_type(Labelled(""))

ARROW_ARRAYS = {
    **{str(kind): functools.partial(lambda kind: pa.array([1, None, 3], kind), kind) for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64(), pa.float32(), pa.float64())}, "halffloat": lambda: pa.array([np.float16(1.5), None], pa.float16()), "double with NaN": lambda: pa.array([1.5, math.nan, -0.0]), "bool": lambda: pa.array([True, None]), "null": lambda: pa.nulls(3), "string": lambda: pa.array(["a", None, "ü"]), "large_string": lambda: pa.array(["a", None], pa.large_string()), "string_view": lambda: pa.array(["a", None, "a text that is too long to be inline"], pa.string_view()), "binary": lambda: pa.array([b"a", None]), "large_binary": lambda: pa.array([b"a"], pa.large_binary()), "binary_view": lambda: pa.array([b"a", b"x" * 30], pa.binary_view()), "fixed_size_binary": lambda: pa.array([b"abc", None], pa.binary(3)),
    "date32": lambda: pa.array([dt.date(2026, 1, 1), None]), "date64": lambda: pa.array([dt.date(2026, 1, 1), None], pa.date64()), **{f"time: {kind}": functools.partial(lambda kind: pa.array([1, None], kind), kind) for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))}, **{f"timestamp[{unit}]": functools.partial(lambda unit: pa.array([1, None], pa.timestamp(unit)), unit) for unit in ("s", "ms", "us", "ns")}, "timestamp with zone": lambda: pa.array([1, None], pa.timestamp("us", "Europe/Vienna")), **{f"duration[{unit}]": functools.partial(lambda unit: pa.array([1, None], pa.duration(unit)), unit) for unit in ("s", "ms", "us", "ns")}, "month_day_nano_interval": lambda: pa.array([(1, 2, 3), None], pa.month_day_nano_interval()),
    "decimal32": lambda: pa.array([decimal.Decimal("1.5")], pa.decimal32(5, 2)), "decimal64": lambda: pa.array([decimal.Decimal("1.5")], pa.decimal64(10, 2)), "decimal128": lambda: pa.array([decimal.Decimal("1.5"), None], pa.decimal128(20, 2)), "decimal256": lambda: pa.array([decimal.Decimal("1.5")], pa.decimal256(50, 2)),
    "list": lambda: pa.array([[1], None, []]), "large_list": lambda: pa.array([[1], None], pa.large_list(pa.int8())), "fixed_size_list": lambda: pa.array([[1, 2], None], pa.list_(pa.int8(), 2)), "list_view": lambda: pa.array([[1], None, [2, 3]], pa.list_view(pa.int8())), "large_list_view": lambda: pa.array([[1], [2, 3]], pa.large_list_view(pa.int8())), "struct": lambda: pa.array([{"x": 1, "y": "a"}, None]), "map": lambda: pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())), "list of struct of list": lambda: pa.array([[{"a": [1]}], None]),
    "dictionary": lambda: pa.array(["a", "b", None, "a"]).dictionary_encode(), "dictionary, ordered": lambda: pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), pa.array(["x", "y"]), ordered=True), "dictionary with unused values": lambda: pa.DictionaryArray.from_arrays(pa.array([0, None], pa.int16()), pa.array(["x", "unused"])), "dictionary in a list": lambda: pa.ListArray.from_arrays([0, 2], pa.array(["a", "b"]).dictionary_encode()), "run_end_encoded": lambda: pa.RunEndEncodedArray.from_arrays([2, 5], pa.array(["a", "b"])), "dense_union": lambda: pa.UnionArray.from_dense(pa.array([0, 1, 0], pa.int8()), pa.array([0, 0, 1], pa.int32()), [pa.array([1, 2]), pa.array(["a"])]), "sparse_union": lambda: pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])]),
    "extension type": lambda: pa.ExtensionArray.from_storage(Labelled("x"), pa.array([1, None], pa.int16())), "extension: uuid": lambda: pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))), "extension: json": lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(['{"a": 1}'])), "extension: fixed shape tensor": lambda: pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(8.0).reshape(2, 2, 2)), "empty": lambda: pa.array([], pa.list_(pa.string())), "a slice": lambda: pa.array(range(1000)).slice(10, 5), "a slice of strings": lambda: pa.array([f"row {i}" for i in range(1000)]).slice(10, 5),
}  # fmt: skip
for _name, _make in ARROW_ARRAYS.items():
    case("pyarrow", f"array: {_name}", _make)
    case(
        "pyarrow",
        f"table: {_name}",
        functools.partial(lambda make: pa.table({"c": make(), "n": pa.nulls(len(make()))}), _make),
    )
_SCHEMA = pa.schema(
    [pa.field("a", pa.int8(), nullable=False, metadata={"unit": "m"}), pa.field("", pa.string())],
    metadata={"k": b"\xff"},
)
ARROW = {
    "table with metadata and not nullable": lambda: pa.table([pa.array([1], pa.int8()), pa.array(["x"])], schema=_SCHEMA), "table of pandas": lambda: pa.Table.from_pandas(pd.DataFrame({"a": [1, 2]}, index=["x", "y"])), "table without columns": lambda: pa.table({}), "table without columns, with rows": lambda: pa.table({"a": [1, 2]}).select([]), "table without rows": lambda: pa.table({"a": pa.array([], pa.string())}), "table without batches": lambda: pa.Table.from_batches([], _SCHEMA), "table of chunks": lambda: pa.concat_tables([pa.table({"a": [1]}), pa.table({"a": [2, 3]})]), "table with unaligned chunks": lambda: pa.table({"a": pa.chunked_array([[1], [2, 3]]), "b": pa.chunked_array([[1, 2], [3]])}), "table with two columns of one name": lambda: pa.Table.from_arrays([pa.array([1]), pa.array(["x"])], names=["a", "a"]),
    "record batch": lambda: pa.record_batch([pa.array([1], pa.int8()), pa.array(["x"])], schema=_SCHEMA), "record batch without rows": lambda: pa.record_batch({"a": pa.array([], pa.int8())}), "chunked array": lambda: pa.chunked_array([[1, 2], [], [3]]), "chunked array without chunks": lambda: pa.chunked_array([], type=pa.int8()), "chunked dictionaries that differ": lambda: pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()]), "chunked array of an extension type": lambda: pa.chunked_array([pa.ExtensionArray.from_storage(Labelled("x"), pa.array([1], pa.int16()))]), "schema": lambda: _SCHEMA, "field": lambda: _SCHEMA.field(0), "type": lambda: [pa.int8(), pa.list_(pa.field("x", pa.int8(), nullable=False)), pa.dictionary(pa.int8(), pa.string(), ordered=True), Labelled("y")], "scalar": lambda: pa.scalar(5, pa.int16()), "scalar, missing": lambda: pa.scalar(None, pa.timestamp("s")), "scalar struct": lambda: pa.scalar({"a": [1, None]}), "large table": lambda: pa.table({"a": range(20_000), "s": [str(i) for i in range(20_000)]}), "buffer": lambda: pa.py_buffer(b"abc"), "in a list": lambda: [pa.table({"a": [1]}), pa.array([1])],
}  # fmt: skip
for _name, _make in ARROW.items():
    case("pyarrow", _name, _make)
