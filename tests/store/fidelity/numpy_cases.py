"""What is tried of numpy."""

import math

import numpy as np

from .registered import case

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "g", "c8", "c16", "G", ">i4", "<i4", ">f8", ">c16", ">u2", "S3", "U3", ">U3", "V4", "S0", "U0",
    *[f"{kind}8[{unit}]" for kind in "Mm" for unit in ("Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as")], "M8[25s]", ">M8[ns]", "M8", "m8"]  # fmt: skip


def of_dtype(name):
    def make():
        dtype = np.dtype(name)
        if dtype.kind in "Mm":
            return np.array([1, 2, np.iinfo(np.int64).min], "i8").astype(dtype.newbyteorder("=")).astype(dtype)
        if dtype.kind in "SU":
            return np.array(["a", "bcd", ""]).astype(dtype)
        if dtype.kind == "V":
            return np.frombuffer(b"abcdefgh", dtype)
        if dtype.kind in "fc":
            return np.array([1.5, -0.0, np.nan, np.inf]).astype(dtype)
        return np.array([0, 1, 1]).astype(dtype)

    return make


for _dtype in DTYPES:
    case("numpy", f"dtype {_dtype}", of_dtype(_dtype))


def read_only():
    value = np.arange(5)
    value.flags.writeable = False
    return value


def structured():
    value = np.zeros(3, np.dtype([("a", "i4"), ("b", "f8", (2,)), ("c", [("d", "U2")])], align=True))
    value["a"] = [1, 2, 3]
    value["c"]["d"] = "x"
    return value


def masked(**more):
    return np.ma.array([1.5, 2.0, 3.0], mask=[False, True, False], **more)


def hard_masked():
    value = masked(fill_value=-1.0)
    value.harden_mask()
    return value


NUMPY = {
    "0-d": lambda: np.array(5.5), "empty": lambda: np.empty((0, 3), "f4"), "zero-sized in the middle": lambda: np.empty((2, 0, 3)), "C order": lambda: np.arange(6.0).reshape(2, 3),
    "Fortran order": lambda: np.asfortranarray(np.arange(6.0).reshape(2, 3)), "large Fortran order": lambda: np.asfortranarray(np.arange(90_000.0).reshape(300, 300)), "transposed": lambda: np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    "large, transposed": lambda: np.arange(24_000).reshape(20, 30, 40).transpose(2, 0, 1), "large, strided and transposed": lambda: np.arange(24_000).reshape(20, 30, 40)[:, ::2].T, "large dates, Fortran order": lambda: np.asfortranarray(np.arange(10_000).reshape(100, 100).astype("M8[s]")), "large dates, other byte order": lambda: np.arange(5_000).astype(">M8[s]"),
    "strided view": lambda: np.arange(10)[::3], "reversed view": lambda: np.arange(5)[::-1], "broadcast view": lambda: np.broadcast_to(np.arange(3), (2, 3)), "read-only": read_only, "large": lambda: np.arange(100_000),
    "objects": lambda: np.array([1, "a", None, [1, 2], math.nan], dtype=object), "objects, 2-d Fortran": lambda: np.asfortranarray(np.array([[1, "a"], [None, 2.5]], dtype=object)),
    "StringDType": lambda: np.array(["a", "long enough not to be inline" * 3], np.dtypes.StringDType()), "StringDType with missing": lambda: np.array(["a", None], np.dtypes.StringDType(na_object=None)),
    "structured, aligned, nested": structured, "structured with titles": lambda: np.zeros(2, [(("title", "a"), "i4")]), "structured with objects": lambda: np.array([(1, "a")], [("i", "i8"), ("o", object)]),
    "structured, unaligned big-endian": lambda: np.array([(1, 2.5)], [("a", ">i2"), ("b", "<f8")]), "recarray": lambda: np.rec.array([(1, 2.5), (3, 4.5)], dtype=[("a", "i4"), ("b", "f8")]),
    "record": lambda: np.rec.array([(1, 2.5)], dtype=[("a", "i4"), ("b", "f8")])[0], "void scalar": lambda: structured()[0], "masked": masked, "masked with fill_value": lambda: masked(fill_value=-9.0), "masked, no mask": lambda: np.ma.array([1, 2]),
    "masked, full mask": lambda: np.ma.array(np.zeros(3, "i2"), mask=True), "masked, hard mask": hard_masked, "masked constant": lambda: np.ma.masked, "masked structured": lambda: np.ma.array([(1, 2.0)], mask=[(True, False)], dtype=[("a", "i4"), ("b", "f8")]),
    "masked Fortran": lambda: np.ma.array(np.asfortranarray(np.arange(6).reshape(2, 3)), mask=False), "matrix": lambda: np.matrix([[1, 2]]), "NaN payloads": lambda: np.array([0x7FF8000000000123, 0xFFF8000000000000], "u8").view("f8"),
    "scalar float32": lambda: np.float32(1.5), "scalar float64 NaN": lambda: np.float64("nan"), "scalar longdouble": lambda: np.longdouble("1.1"), "scalar int8": lambda: np.int8(-3), "scalar bool": lambda: np.True_, "scalar str": lambda: np.str_("ä"), "scalar bytes": lambda: np.bytes_(b"a\0b"),
    "scalar datetime64[us]": lambda: np.datetime64("2026-01-01T00:00:01", "us"), "scalar NaT": lambda: np.datetime64("NaT", "D"), "scalar timedelta64[25s]": lambda: np.array(3, "m8[25s]")[()], "scalar complex64": lambda: np.complex64(1 - 2j),
    "dtype": lambda: np.dtype([("a", ">i4"), ("b", "U3")]), "dtype with metadata": lambda: np.dtype("f8", metadata={"unit": "m"}), "array with metadata in its dtype": lambda: np.zeros(2, np.dtype("f8", metadata={"unit": "m"})), "random generator": lambda: np.random.default_rng(3), "RandomState": lambda: np.random.RandomState(3),
    "polynomial": lambda: np.polynomial.Polynomial([1, 2, 3]), "ufunc": lambda: np.add, "list of arrays": lambda: [np.arange(3), np.zeros((2, 2), "f4")],
}  # fmt: skip
for _name, _make in NUMPY.items():
    case("numpy", _name, _make)
