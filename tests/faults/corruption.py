"""Changes stored bytes at random and loads them; run as a program, so that a crash takes nothing else with it.

    python corruption.py DIRECTORY SEED FIRST END

Before each mutation its number is printed. A mutation is *raw* (the bytes of a file or of a row are changed and nothing else) or *sealed* (digests
and signature are made to fit again, as in a store that somebody crafted). After a raw one a load gives the value that was stored, or
an error of Stepwell, and then the value counts as missing. After a sealed one it gives an error, or a value all of which can be read. The
peak of memory stays below twice the decoded value's. What does not hold is printed as a line that begins with ``WRONG``.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
import signal
import struct
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import scipy.sparse

from stepwell.kernel_runtime.errors import ValueUnavailableError
from stepwell.kernel_runtime.store.objects import value_files
from stepwell.kernel_runtime.store.objects.digests import blake
from stepwell.kernel_runtime.store.objects.header import Header, read_header, room_for
from stepwell.kernel_runtime.store.objects.value_files import write_parts
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import codecs
from stepwell.kernel_runtime.versions.data import data_version

SLACK = 24 << 20
"""Bytes that a load may take beside the value: libraries make pools and caches at their first use of a type."""
SECONDS = 20
OUTCOMES = Counter()
EDGES = [
    0,
    1,
    127,
    128,
    255,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x7FFFFFFFFFFFFFFF,
    0xFFFFFFFFFFFFFFFF,
]


class Point:
    """A class whose values are stored with a copy of its code."""

    def __init__(self, x):
        self.x = x


def words(count):
    return [f"word {number % 97} {'.' * (number % 40)}" for number in range(count)]


def arrow_columns(count):
    texts = words(count)
    return {
        "text": pa.array(texts),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(texts, pa.string_view()),
        "bytes": pa.array([text.encode() for text in texts], pa.binary()),
        "list": pa.array([list(range(number % 5)) for number in range(count)]),
        "texts": pa.array([[text] * (at % 3) for at, text in enumerate(texts)]),
        "list view": pa.array([list(range(number % 4)) for number in range(count)], pa.list_view(pa.int32())),
        "dictionary": pa.array(texts).dictionary_encode(),
        "struct": pa.array([{"a": number, "b": text} for number, text in enumerate(texts)]),
        "map": pa.array([[(text, 1)] for text in texts], pa.map_(pa.string(), pa.int8())),
        "missing": pa.array([None if number % 3 else number for number in range(count)]),
        "decimal": pa.array(range(count)).cast(pa.decimal128(30, 2)),
        "bool": pa.array([number % 2 == 0 for number in range(count)]),
    }


def encoded_runs(count):
    return pa.RunEndEncodedArray.from_arrays(pa.array(range(1, count + 1), pa.int32()), pa.array(words(count)))


def union(count):
    return pa.UnionArray.from_dense(
        pa.array([number % 2 for number in range(count)], pa.int8()),
        pa.array([number // 2 for number in range(count)], pa.int32()),
        [pa.array(range(count)), pa.array(words(count))],
    )


def polars_frame(count):
    texts = words(count)
    return pl.DataFrame(
        {
            "text": texts,
            "number": range(count),
            "list": [[text] * (at % 3) for at, text in enumerate(texts)],
            "kind": pl.Series(texts, dtype=pl.Categorical),
            "enum": pl.Series(["a", "b"] * (count // 2), dtype=pl.Enum(["a", "b"])),
            "struct": [{"a": text} for text in texts],
            "bytes": [text.encode() for text in texts],
        }
    )


def pandas_frame(count):
    texts = words(count)
    return pd.DataFrame(
        {
            "text": pd.array(texts, dtype="str"),
            "number": np.arange(count) * 1.5,
            "kind": pd.Categorical(texts),
            "arrow": pd.array([[at] * (at % 3) for at in range(count)], dtype=pd.ArrowDtype(pa.list_(pa.int64()))),
            "time": pd.date_range("2026", periods=count, freq="s"),
        },
        index=pd.MultiIndex.from_arrays([np.arange(count), texts], names=["at", "of"]),
    )


VALUES = {
    "none": lambda: None,
    "int": lambda: 2**70,
    "float": lambda: 1.5,
    "text": lambda: "a text – and more",
    "bytes": lambda: b"\0\1\2" * 9,
    "long text": lambda: "text – " * 20_000,
    "list": lambda: [1, "two", {"three": 4.0}],
    "instances": lambda: [Point(1), Point([2])],
    "small array": lambda: np.arange(2000.0),
    "array": lambda: np.arange(30_000),
    "arrays": lambda: {"a": np.arange(2000.0), "b": [np.arange(9000)], "c": np.array(["x", None] * 600, dtype=object)},
    "large array": lambda: np.arange(700_000),
    "small table": lambda: pa.table({name: column for name, column in arrow_columns(60).items() if name != "map"}),
    "table": lambda: pa.table(arrow_columns(700)),
    "batch": lambda: pa.record_batch(arrow_columns(40)),
    "chunked": lambda: pa.chunked_array([words(3000), words(10)]),
    "dictionary": lambda: pa.array(words(4000)).dictionary_encode(),
    "runs": lambda: encoded_runs(500),
    "union": lambda: union(500),
    "small polars": lambda: polars_frame(40),
    "polars": lambda: polars_frame(900),
    "polars series": lambda: pl.Series("s", words(4000)),
    "small frame": lambda: pandas_frame(30),
    "frame": lambda: pandas_frame(3000),
    "series of text": lambda: pd.Series(words(2500), dtype="str"),
    "csr": lambda: scipy.sparse.random(200, 300, 0.1, format="csr", random_state=1),
    "csc array": lambda: scipy.sparse.csc_array(scipy.sparse.random(300, 200, 0.1, format="csc", random_state=1)),
    "bsr": lambda: scipy.sparse.bsr_matrix(np.kron(np.eye(40), np.ones((4, 5)))),
    "coo in a list": lambda: [scipy.sparse.random(200, 300, 0.1, format="coo", random_state=1)],
}


# -- mutations ---------------------------------------------------------------------------------------------------------


def changed(data, chance):
    """Return other bytes, and how they were made."""
    data = bytearray(data)
    size = len(data)
    how = chance.choice(("flip", "flip", "flip", "edge", "edge", "cut", "longer", "swap", "zeros", "copy"))
    if not size:
        how = "longer"
    if how == "flip":
        for _ in range(chance.choice((1, 1, 1, 2, 8))):
            data[chance.randrange(size)] ^= 1 << chance.randrange(8)
    elif how == "edge":
        length = chance.choice((1, 2, 4, 8))
        at = chance.randrange(size) // length * length
        data[at : at + length] = (chance.choice(EDGES) & (256**length - 1)).to_bytes(length, "little")[: size - at]
    elif how == "cut":
        del data[chance.randrange(size) :]
    elif how == "longer":
        data += bytes(chance.randrange(256) for _ in range(chance.choice((1, 64, 5000))))
    else:
        length = min(chance.choice((1, 8, 64, 4096)), size)
        a, b = chance.randrange(size - length + 1), chance.randrange(size - length + 1)
        first, second = bytes(data[a : a + length]), bytes(data[b : b + length])
        if how == "zeros":
            data[a : a + length] = bytes(length)
        else:
            data[a : a + length] = second
            if how == "swap":
                data[b : b + length] = first
    return bytes(data), how


def other_header(data, chance):
    """Return a file with another header that can be read: sizes, digests, codec, or what else it says."""
    length = struct.unpack_from("<I", data, 12)[0]
    told = json.loads(data[64 : 64 + length])
    what = chance.choice(("size", "size", "digest", "codec", "readonly", "more", "count"))
    if what == "size":
        target = chance.choice([told["stream"], *told["buffers"]])
        target[0] = chance.choice((0, 1, -1, target[0] + 1, target[0] * 2, 1 << 31, 1 << 40, 1 << 62, 10**30, target[0] - 1))
    elif what == "digest":
        chance.choice([told["stream"], *told["buffers"]])[1] = blake(b"x")
    elif what == "codec":
        told["codec"] = chance.choice(("plain", "pickle", "arrow-table", "arrow-array", "polars-frame", "zip"))
    elif what == "readonly" and told["buffers"]:
        told["buffers"][0][2] = not told["buffers"][0][2]
    elif what == "count":
        told["buffers"] = told["buffers"] * chance.choice((0, 2, 1000))
    else:
        told["key"] = "another"
    packed = json.dumps(told, separators=(",", ":")).encode()
    made = bytearray(data[:64] + packed + data[64 + length :]) if chance.random() < 0.5 else bytearray(data)
    if made[64 : 64 + len(packed)] != packed:
        made[64 : 64 + max(length, len(packed))] = packed.ljust(max(length, len(packed)))
    struct.pack_into("<I", made, 12, len(packed))
    return bytes(made), f"header {what}"


class Stored:
    """A value of the corpus and its stored form."""

    def __init__(self, store, name):
        self.store = store
        self.name = name
        value = VALUES[name]()
        self.version = data_version(value)
        self.stored = store.put(value, key=name, memo_key="m")
        if self.stored.object_name is not None:
            self.path = store.directory / "objects" / self.stored.object_name
            self.data = self.path.read_bytes()
            length = struct.unpack_from("<I", self.data, 12)[0]
            self.header = read_header(self.data[64 : 64 + length])
            self.parts = [self.data[start:end] for start, end in self.header.places(length)]
        else:
            parts = codecs.unpack(self.stored.inline)
            self.parts = [bytes(parts.stream), *map(bytes, parts.buffers)]
            self.readonly = [buffer.readonly for buffer in parts.buffers]

    def raw(self, chance):
        """Change bytes; return the value's record and how it was done."""
        stored = self.stored
        if stored.object_name is not None:
            data, how = changed(self.data, chance) if chance.random() < 0.75 else other_header(self.data, chance)
            self.path.parent.mkdir(exist_ok=True)
            self.path.write_bytes(data)
            return stored, how
        what = chance.choice(("inline", "inline", "inline", "codec", "digest", "signature"))
        if what == "inline":
            data, how = changed(stored.inline, chance)
            return dataclasses.replace(stored, inline=data), f"row {how}"
        if what == "codec":
            return dataclasses.replace(
                stored, codec=chance.choice(("plain", "arrow-table", "polars-frame", "pickle"))
            ), "row codec"
        if what == "digest":
            return dataclasses.replace(stored, digest=changed(stored.digest.encode(), chance)[0].decode("latin-1")), "row digest"
        return dataclasses.replace(stored, signature=changed(stored.signature or b"", chance)[0]), "row signature"

    def sealed(self, chance):
        """Change data and make everything else fit; return the record of the value that this gives, and how it was done."""
        parts = list(self.parts)
        # A signed stream is the signer's: it may do anything.
        first = 1 if self.stored.codec == "pickle" else 0
        at = chance.randrange(first, len(parts)) if len(parts) > first else 0
        if len(parts) > first + 1 and chance.random() < 0.1:
            other = chance.randrange(first, len(parts))
            parts[at], parts[other] = parts[other], parts[at]
            how = "sealed: other order"
        elif self.stored.codec == "pickle" and at == 0:
            return self.stored, "nothing"
        else:
            parts[at], how = changed(parts[at], chance)
            for _ in range(chance.choice((0, 0, 3))):
                parts[at] = changed(parts[at], chance)[0]
            how = f"sealed: {how}"
        signer = self.store.signer
        stored = self.stored
        if stored.object_name is None:
            views = [
                memoryview(part if readonly else bytearray(part)) for part, readonly in zip(parts[1:], self.readonly, strict=True)
            ]
            encoded = codecs.Encoded(stored.codec, parts[0], views)
            inline = codecs.pack(encoded)
            signature = signer.sign((stored.codec.encode(), inline)) if stored.codec == "pickle" else None
            digest = codecs.inline_digest(stored.codec, parts[0], views)
            return dataclasses.replace(stored, inline=inline, signature=signature, digest=digest), how
        described = tuple(
            (len(part), blake(part), readonly) for part, (_, _, readonly) in zip(parts[1:], self.header.buffers, strict=True)
        )
        header = Header(stored.codec, (len(parts[0]), blake(parts[0])), described, self.header.metadata)
        room = room_for(stored.codec, len(parts[0]), [(size, readonly) for size, _, readonly in described], self.header.metadata)
        path = self.store.directory / "objects" / header.name
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.seek(room)
            file.flush()
            write_parts(file.fileno(), parts, room)
            packed = header.pack()
            os.pwrite(file.fileno(), self.store.objects.signed_prefix(stored.codec, packed) + packed, 0)
        return dataclasses.replace(stored, digest=header.digest, object_name=header.name), how


# -- what must hold ----------------------------------------------------------------------------------------------------


def use(value, depth=0):
    """Read all of a value."""
    if isinstance(value, pa.Table | pa.RecordBatch | pa.Array | pa.ChunkedArray):
        if len(value) < 100_000:
            value.to_pylist()
    elif isinstance(value, pl.DataFrame | pl.Series):
        if len(value) < 100_000:
            value.to_list() if isinstance(value, pl.Series) else value.rows()
            value.hash() if isinstance(value, pl.Series) else value.height
    elif isinstance(value, pd.DataFrame | pd.Series):
        value.to_string(max_rows=None) if len(value) < 100 else value.to_dict(
            "list" if value.ndim == 2 else None
        ) if value.ndim == 2 else value.tolist()
        value.index.tolist()
    elif scipy.sparse.issparse(value):
        value.toarray()
        value.T @ np.ones(value.shape[0])
    elif isinstance(value, dict | list) and depth < 3:
        for each in value.values() if isinstance(value, dict) else value:
            use(each, depth + 1)
    data_version(value)


def peak():
    """Return the most memory that this process has held since `reset`, in bytes; 0 where the system does not say so."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    except OSError:
        return 0
    return int(fields["VmHWM"].split()[0]) * 1024


def reset():
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def tried(item, number, chance):
    sealed = chance.random() < 0.5
    stored, how = item.sealed(chance) if sealed else item.raw(chance)
    name = f"{number}: {item.name}: {how}"
    signal.alarm(SECONDS)
    reset()
    before = peak()
    try:
        value = item.store.get(stored, key=item.name)
    except ValueUnavailableError as error:
        found = error
    except BaseException as error:
        print(f"WRONG {name}: {type(error).__name__}: {error}"[:600].replace("\n", " "), flush=True)
        return
    else:
        found = None
        try:
            if sealed:
                use(value)
            elif data_version(value) != item.version:
                print(f"WRONG {name}: another value", flush=True)
        except (ArithmeticError, ValueError, pa.ArrowException, pl.exceptions.PolarsError):
            # A date or decimal that Python has not, a text that was no text: it is the value's, and safely so.
            assert sealed
    grown = peak() - before
    if grown > 2 * max(item.stored.size, stored.size) + SLACK:
        print(f"WRONG {name}: {grown >> 20} MiB for {stored.size:,} bytes", flush=True)
    if found is not None and not isinstance(found, value_files.UntrustedValueError) and not sealed:
        # The file of another form stays where it is, for the Stepwell that knows it; like what does not load, it is marked.
        gone = stored.digest in item.store._shared.marks or not item.store.objects.holds(stored)
        if not gone:
            print(f"WRONG {name}: does not count as missing: {found}".replace("\n", " "), flush=True)
    signal.alarm(0)
    OUTCOMES[f"{'sealed' if sealed else 'raw'}: {'value' if found is None else 'error'}"] += 1
    if sealed and stored.object_name and stored.object_name != item.stored.object_name:
        (item.store.directory / "objects" / stored.object_name).unlink(missing_ok=True)


def main(directory, seed, first, end):
    warnings.simplefilter("ignore")
    if "-v" not in sys.argv:
        sys.stderr = io.StringIO()
    if "-v" not in sys.argv:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    store = open_store(Path(directory) / f"store {first}")
    corpus = [Stored(store, name) for name in VALUES]
    # Old enough to be witnessed at a load.
    time.sleep(0.05)
    for item in corpus:
        use(store.get(item.stored, key=item.name))
    small = [item for item in corpus if item.stored.size < 1 << 20]
    for number in range(first, end):
        print(number, flush=True)
        chance = random.Random(f"{seed} {number}")
        tried(chance.choice(corpus if number % 20 == 0 else small), number, chance)
    print("END", json.dumps(OUTCOMES), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
