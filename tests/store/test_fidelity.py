"""Every kind of value that is tried comes back the same, with the same data version; the table of the documentation says how it is stored."""

import pathlib
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from hypothesis.extra import pandas as pdst

from stepwell.kernel_runtime.store.values import codecs
from stepwell.kernel_runtime.store.values.loading import libraries_of
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.ownership import owner

from .exactness import differences
from .fidelity import CASES
from .fidelity.sklearn_cases import data

TABLE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "fidelity.md"


def through(store, value):
    return store.get(store.put(value, key="a", memo_key="m"), key="a")


def stored_and_loaded(value):
    """Through the stored form alone, without a catalog."""
    encoded = codecs.encode(value, key="a")
    parts = codecs.unpack(codecs.pack(encoded))
    return codecs.decode(encoded.codec, parts.stream, parts.buffers, key="a")


@pytest.mark.parametrize("library", CASES)
def test_every_case_comes_back_the_same(store, library):
    wrong = {
        name: found for name, make in CASES[library].items() if (found := differences(value := make(), through(store, value)))
    }
    assert wrong == {}


@pytest.mark.parametrize("library", CASES)
def test_equal_values_have_equal_versions_before_and_after_storing(store, library):
    for name, make in CASES[library].items():
        version = data_version(make())
        assert version is not None, name
        assert version == data_version(make()) == data_version(through(store, make())), name


def test_no_two_cases_of_a_library_have_the_same_version():
    for library in ("numpy", "pyarrow", "polars", "scipy.sparse"):
        versions: dict[str, list[str]] = {}
        for name, make in CASES[library].items():
            versions.setdefault(data_version(make()), []).append(name)
        # How an array lies in memory does not count, and what numpy calls one name on this machine is one thing.
        same = [names for names in versions.values() if len(names) > 1]
        assert all(_may_be_the_same(names) for names in same), same


def _may_be_the_same(names):
    alike = ({"C order", "Fortran order"}, {"dtype i4", "dtype <i4"}, {"masked, no mask"}, {"duplicates, unsorted"}, {"csr_array", "canonical flags looked at"}, {"dtype S0", "dtype S3"}, {"dtype U0", "dtype U3"}, {"table without columns"}, {"Series: sorted flag", "Series: several chunks"}, {"frame: sorted flag", "frame: several chunks"})  # fmt: skip
    return any(set(names) <= each for each in alike)


def test_estimators_predict_the_same(store):
    features, _ = data()
    for name, make in CASES["scikit-learn"].items():
        model = make()
        np.testing.assert_array_equal(through(store, model).predict(features), model.predict(features), err_msg=name)


# -- properties ---------------------------------------------------------------------------------------------------------

some = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
dtypes = st.one_of(
    npst.scalar_dtypes(),
    npst.unicode_string_dtypes(endianness="?"),
    npst.byte_string_dtypes(endianness="?"),
    npst.array_dtypes(npst.scalar_dtypes(), max_size=3),
)


@given(npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)), st.integers(0, 3))
@some
def test_arrays_of_any_dtype_and_layout(array, how):
    value = (array, array.T, np.asfortranarray(array), array[..., ::-1] if array.ndim else array)[how]
    back = stored_and_loaded(value)
    assert differences(value, back) == []
    assert data_version(value) == data_version(back)


columns = pdst.columns(5, dtype=None, elements=st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.floats())
typed = st.sampled_from(["int8", "uint64", "float32", "float64", "bool", "datetime64[ns]", "timedelta64[ns]", "complex128"])  # fmt: skip
conversions = st.sampled_from([lambda frame: frame, lambda frame: frame.convert_dtypes(), lambda frame: frame.astype("category"), lambda frame: frame.T, lambda frame: frame.iloc[::2], lambda frame: frame.set_index(frame.columns[0]), lambda frame: frame.stack()])  # fmt: skip
indexes = st.one_of(pdst.range_indexes(max_size=4), pdst.indexes(elements=st.text(max_size=2), max_size=4), pdst.indexes(elements=st.floats(), max_size=4))  # fmt: skip


@given(
    st.lists(typed, min_size=1, max_size=4).flatmap(
        lambda kinds: pdst.data_frames(
            [pdst.column(f"c{at}", dtype=np.dtype(kind)) for at, kind in enumerate(kinds)], index=indexes
        )
    ),
    conversions,
)
@some
def test_frames_of_any_columns_and_index(frame, convert):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            value = convert(frame)
        except (TypeError, ValueError, NotImplementedError):
            value = frame
    back = stored_and_loaded(value)
    assert differences(value, back) == []
    assert data_version(value) == data_version(back)


@given(pdst.series(elements=st.none() | st.integers() | st.text(max_size=3) | st.floats() | st.dates(), dtype=object))
@some
def test_series_of_any_objects(value):
    back = stored_and_loaded(value)
    assert differences(value, back) == []
    assert data_version(value) == data_version(back)


arrow_values = st.recursive(
    st.sampled_from([(pa.int16(), st.none() | st.integers(-9, 9)), (pa.string(), st.none() | st.text(max_size=20)), (pa.string_view(), st.none() | st.text(max_size=20)), (pa.bool_(), st.none() | st.booleans()), (pa.float64(), st.none() | st.floats()), (pa.dictionary(pa.int8(), pa.string()), st.none() | st.sampled_from(["a", "b"]))]),
    lambda inner: inner.map(lambda pair: (pa.list_(pair[0]), st.none() | st.lists(pair[1], max_size=3))) | inner.map(lambda pair: (pa.struct([("x", pair[0])]), st.none() | st.fixed_dictionaries({"x": pair[1]}))),
    max_leaves=3,
)  # fmt: skip


@given(arrow_values.flatmap(lambda pair: st.tuples(st.just(pair[0]), st.lists(pair[1], max_size=6))), st.integers(0, 3), st.integers(0, 3))  # fmt: skip
@some
def test_arrow_arrays_of_any_type_and_slice(typed_values, start, length):
    kind, values = typed_values
    value = pa.array(values, kind).slice(start, length)
    try:
        value.validate(full=True)
    except pa.ArrowInvalid:
        # Arrow itself makes a missing struct of dictionaries that points nowhere.
        assume(False)
    back = stored_and_loaded(value)
    assert differences(value, back) == []
    parts = pa.chunked_array([value.slice(0, 1), value.slice(1)], type=kind)
    assert data_version(parts) == data_version(stored_and_loaded(parts)) == data_version(pa.chunked_array([value], type=kind))


# -- sizes --------------------------------------------------------------------------------------------------------------

TEXTS = [f"row number {at} with a long text" for at in range(20_000)]
NUMBERS = range(20_000)
SLICED = {
    "arrow string_view": lambda: pa.array(TEXTS, pa.string_view()), "arrow list of string_view": lambda: pa.ListArray.from_arrays(pa.array(range(20_001), pa.int32()), pa.array(TEXTS, pa.string_view())), "arrow struct": lambda: pa.array([{"a": at, "t": TEXTS[at]} for at in NUMBERS]), "arrow list_view": lambda: pa.array([[at] for at in NUMBERS], pa.list_view(pa.int64())), "arrow run_end_encoded": lambda: pa.RunEndEncodedArray.from_arrays(range(1, 20_001), pa.array(TEXTS)), "arrow map": lambda: pa.array([[("k", at)] for at in NUMBERS], pa.map_(pa.string(), pa.int64())), "arrow sparse_union": lambda: pa.UnionArray.from_sparse(pa.array([0] * 20_000, pa.int8()), [pa.array(TEXTS)]), "arrow extension": lambda: pa.ExtensionArray.from_storage(pa.json_(), pa.array(TEXTS)), "arrow table": lambda: pa.table({"a": NUMBERS, "t": pa.array(TEXTS, pa.string_view())}),
    "polars String": lambda: pl.Series("s", TEXTS), "polars List": lambda: pl.Series("s", [[text] for text in TEXTS]), "polars Struct": lambda: pl.Series("s", [{"a": text} for text in TEXTS]), "polars Categorical": lambda: pl.Series("s", TEXTS, dtype=pl.Categorical), "polars frame": lambda: pl.DataFrame({"a": NUMBERS, "l": [[text] for text in TEXTS]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SLICED)
def test_a_slice_is_stored_as_large_as_what_it_shows(store, name):
    part = SLICED[name]().slice(1000, 10)
    stored = store.put(part, key="a", memo_key="m")
    assert stored.size < 4000
    assert differences(part, store.get(stored, key="a")) == []


@pytest.mark.parametrize("part", [pd.DataFrame({"a": NUMBERS, "t": TEXTS}).iloc[10:20], pd.Series(TEXTS, dtype="string[pyarrow]").iloc[3:5], np.arange(20_000)[5:9]], ids=["frame", "Arrow-backed", "array"])  # fmt: skip
def test_a_slice_of_pandas_or_numpy_too(store, part):
    assert store.put(part, key="a", memo_key="m").size < 2000


# -- the table ----------------------------------------------------------------------------------------------------------


def table():
    """Return the text of the documentation's table."""
    lines = [
        "# Fidelity",
        "",
        "A loaded value is equal to the stored value in type, dtype, index, names, order, metadata, kinds of NaN and flags. `tests/store/test_fidelity.py` stores, loads",
        "and compares every value below, and checks that the data version of the value does not change. The test also writes this file:",
        "",
        "    python -m pytest tests/store/test_fidelity.py -k table --write-fidelity-table",
        "",
        "The exact type of a value determines its stored form: `plain` is a tag and the value, `arrow-…` is an Arrow IPC stream, `polars-…` is the IPC format of polars, and",
        "`pickle` is pickle protocol 5 with large buffers out of band. A value that cannot be restored is refused when it is materialized, and the error names a remedy. Such",
        "values are generators and other iterators, coroutines, open files, sockets, connections, locks, threads, modules, `polars.LazyFrame`, DuckDB relations, and polars",
        "columns of Python objects.",
        "",
        "Classes and functions of the notebook are stored by name, with a copy of their code (`tests/store/test_code_copies.py`). If a step returns the path of a file, the",
        "contents of the file are stored with the path (`tests/store/test_path_results.py`). A matplotlib figure is stored as a pickle; the rendered picture is stored with the",
        "displays of the step (`tests/execution/test_figures.py`). If a value cannot be loaded because another version of a library wrote it, the value is treated as missing,",
        "and the message names both versions (`tests/store/test_libraries.py`).",
        "",
        "The data version of a value does not depend on the memory layout: chunks of Arrow and polars, blocks of pandas, strides of numpy. C and Fortran order are restored, but",
        "two arrays that differ only in this order have the same data version. Data versions do not depend on the payloads of NaNs either; payloads are restored, too.",
    ]
    for library, cases in CASES.items():
        forms: dict[str, list[str]] = {}
        for name, make in cases.items():
            forms.setdefault(codecs.encode(make(), key="a").codec, []).append(name)
        lines += ["", f"## {library}", "", "| stored as | tried | |", "|---|--:|---|"]
        lines += [f"| `{form}` | {len(names)} | {' · '.join(map(_escaped, names))} |" for form, names in forms.items()]
    total = Counter(library for library, cases in CASES.items() for _ in cases).total()
    return "\n".join([*lines, "", f"{total} kinds of values.", ""])


def _escaped(name):
    return name.replace("|", "\\|").replace("<", "&lt;").replace(">", "&gt;")


def test_the_table_of_the_documentation_is_what_was_tried(request):
    if request.config.getoption("--write-fidelity-table"):
        TABLE.write_text(table(), "utf-8")
    assert TABLE.read_text("utf-8") == table()


def test_the_libraries_that_wrote_a_value_are_kept_with_it():
    assert libraries_of(["numpy.ma", "sklearn.tree", "builtins", "collections", "__main__"], owner) == (("numpy", owner("numpy")), ("sklearn", owner("sklearn")))  # fmt: skip
