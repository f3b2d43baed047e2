"""What does not come back is not stored: types that are not known to are loaded once, here or in a process of their own."""

import collections
import contextlib
import dataclasses
import enum
import io
import os
import pickle
import signal
import sys
import time
import types

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell.kernel_runtime.errors import UnstorableValueError, ValueUnavailableError
from stepwell.kernel_runtime.store.store import open_store
from stepwell.kernel_runtime.store.values import round_trip
from stepwell.kernel_runtime.store.values.loading import CodeReader
from stepwell.kernel_runtime.versions.data import class_version, data_version

LARGE = bytes(9_000_000)


class Keeps:
    """What the classes below have in common: some state."""

    def __init__(self, a=1):
        self.a = a


class Raises(Keeps):
    def __setstate__(self, state):
        raise ValueError("no")


class Exits(Keeps):
    def __setstate__(self, state):
        sys.exit(3)


class Forever(Keeps):
    def __setstate__(self, state):
        while True:
            pass


class Ends(Keeps):
    def __setstate__(self, state):
        os._exit(0)


class Dies(Keeps):
    def __setstate__(self, state):
        os.kill(os.getpid(), signal.SIGKILL)


class Stubborn(Keeps):
    def __setstate__(self, state):
        while True:
            with contextlib.suppress(BaseException):
                time.sleep(1)


class AnotherType(Keeps):
    def __reduce__(self):
        return dict, ()


class OtherContents(Keeps):
    def __setstate__(self, state):
        self.a = 0


class Getattr(Keeps):
    def __getattr__(self, name):
        return self.a[name]


class NewTakes(Keeps):
    def __new__(cls, a):
        return object.__new__(cls)


class Slots:
    __slots__ = ("a",)

    def __init__(self):
        object.__setattr__(self, "a", 1)

    def __setattr__(self, name, value):
        raise AttributeError("frozen")


class Items(dict):
    def __setitem__(self, key, value):
        raise KeyError(key)


class KeywordOnly:
    def __new__(cls, *, a):
        return object.__new__(cls)

    def __getnewargs__(self):
        return (1,)


class Unregistered(pa.ExtensionType):
    def __init__(self):
        super().__init__(pa.int64(), "unregistered")

    def __arrow_ext_serialize__(self):
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage, serialized):
        return cls()


BAD = {
    "setstate raises": Raises,
    "setstate exits": Exits,
    "setstate ends the process": Ends,
    "setstate kills the process": Dies,
    "another type": AnotherType,
    "other contents": lambda: OtherContents(5),
    "getattr recurses": Getattr,
    "new takes arguments": lambda: NewTakes(1),
    "slots": Slots,
    "items": lambda: Items(a=1),
    "keyword only": lambda: KeywordOnly(a=1),
    "extension type": lambda: pa.ExtensionArray.from_storage(Unregistered(), pa.array([1])),
}


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "store", code=CodeReader(class_version, data_version=data_version))
    yield store
    store.close()


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_come_back_is_refused_wherever_it_is(store, name):
    with pytest.raises(UnstorableValueError, match="does not load as an equal object") as refused:
        store.put(BAD[name](), key="a", memo_key="m")
    assert refused.value.path == ""
    if name == "extension type":
        # In a pickle it brings its class.
        return
    with pytest.raises(UnstorableValueError, match=r"at \['results'\]\[1\] does not load as an equal object") as refused:
        store.put({"n": 1, "results": [0, BAD[name]()]}, key="a", memo_key="m")
    assert refused.value.path == "['results'][1]"
    assert pickle.loads(pickle.dumps(refused.value)).path == refused.value.path


@pytest.mark.parametrize("kind", [Forever, Stubborn])
@pytest.mark.parametrize("seconds", ["SECONDS", "SECONDS_APART"])
def test_loading_has_a_time_limit(store, monkeypatch, seconds, kind):
    monkeypatch.setattr(round_trip, "SECONDS", 0.5)
    monkeypatch.setattr(round_trip, "SECONDS_APART", 6)
    value = kind() if seconds == "SECONDS" else [kind(), LARGE]
    with pytest.raises(UnstorableValueError, match="takes longer than"):
        store.put(value, key="a", memo_key="m")


def test_a_large_value_is_loaded_in_a_process_of_its_own_and_that_is_remembered(store, monkeypatch):
    apart = []
    real = round_trip._in_separate_process
    monkeypatch.setattr(round_trip, "_in_separate_process", lambda *given: (apart.append(1), real(*given)))
    for bad in (Raises(), Exits(), OtherContents(3)):
        # One whose class is by copy there is not compared.
        if type(bad) is not OtherContents:
            with pytest.raises(UnstorableValueError, match=r"at \[0\]"):
                store.put([bad, LARGE], key="a", memo_key="m")
    assert len(apart) == 2
    good = [collections.namedtuple("Pair", "a b")(1, 2), LARGE]  # noqa: PYI024 - it has __getnewargs__
    good[0].__class__.__module__ = __name__
    monkeypatch.setattr(sys.modules[__name__], "Pair", type(good[0]), raising=False)
    for _ in range(2):
        assert store.get(store.put(good, key="a", memo_key="m"), key="a")[0] == (1, 2)
    assert len(apart) == 3


def test_what_a_class_prints_when_it_is_loaded_does_not_disturb_the_other_process(store):
    with pytest.raises(UnstorableValueError, match="does not load as an equal object"):
        store.put([Noisy(), LARGE], key="a", memo_key="m")


class Noisy(Keeps):
    def __setstate__(self, state):
        print('{"unknown": true}', flush=True)
        raise ValueError("loud")


def test_a_large_value_whose_loading_ends_the_process_ends_only_one_of_its_own(store):
    with pytest.raises(UnstorableValueError, match=r"at \[0\] does not load as an equal object") as refused:
        store.put([Ends(), LARGE], key="a", memo_key="m")
    assert "ends the process" in str(refused.value)


def test_a_class_that_only_this_process_knows_is_loaded_here(store):
    module = types.ModuleType("made_here")
    sys.modules["made_here"] = module
    try:
        exec(
            "class Known:\n    def __init__(self): self.a = 1\n    def __setstate__(self, state): self.__dict__ = state",
            vars(module),
        )
        found = store.get(store.put([module.Known(), LARGE], key="a", memo_key="m"), key="a")
        assert type(found[0]) is module.Known
    finally:
        del sys.modules["made_here"]


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    a: int


class Time(Keeps):
    """Another one at each load: whether it is the same cannot be told."""

    def __setstate__(self, state):
        self.a = time.perf_counter_ns()


class Lazy(list):
    """A subclass without methods of its own."""


@pytest.mark.parametrize(
    "make",
    [lambda: Color.RED, lambda: Frozen(1), Time, lambda: Lazy([1]), lambda: ValueError("x"), lambda: io.BytesIO(b"x")],
    ids=["enum", "frozen with slots", "another at each load", "list", "exception", "stream"],
)
def test_what_comes_back_is_stored(store, make):
    value = make()
    assert type(store.get(store.put([value], key="a", memo_key="m"), key="a")[0]) is type(value)


def test_types_that_come_back_are_not_loaded(store, monkeypatch):
    monkeypatch.setattr(round_trip, "_decoded", None)
    store.put([np.arange(3), collections.OrderedDict(a=1), Keeps(), Lazy([1]), {1, 2}], key="a", memo_key="m")


def test_a_value_with_a_frame_in_it_is_not_loaded(store, monkeypatch):
    monkeypatch.setattr(round_trip, "_decoded", None)
    monkeypatch.setattr(round_trip, "_in_separate_process", None)
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
    store.put({"frame": frame, "column": frame["a"]}, key="a", memo_key="m")


def test_what_a_class_of_a_library_leaves_out_is_the_librarys_decision(tmp_path):
    def put(owner, large):
        code = CodeReader(class_version, owner=owner, data_version=data_version)
        with contextlib.closing(open_store(tmp_path / "store", code=code)) as store:
            return store.get(store.put([OtherContents(5), large], key="a", memo_key="m"), key="a")

    for large in (b"", LARGE):
        assert type(put(lambda _: "lib 1.0", large)[0]) is OtherContents
    with pytest.raises(UnstorableValueError, match="does not load as an equal object"):
        put(lambda _: None, b"")


def test_the_value_is_not_touched_by_its_being_loaded(store):
    value = Doubles(np.arange(5000))
    store.put(value, key="a", memo_key="m")
    assert value.a[-1] == 4999


class Doubles(Keeps):
    def __setstate__(self, state):
        state["a"] *= 1
        state["a"][:] = state["a"]
        self.__dict__.update(state)


def test_an_extension_type_that_is_not_registered_where_it_is_loaded_is_named(store):
    value = pa.ExtensionArray.from_storage(Unregistered(), pa.array([1]))
    pa.register_extension_type(Unregistered())
    try:
        stored = store.put(value, key="a", memo_key="m")
        assert store.get(stored, key="a").type == Unregistered()
    finally:
        pa.unregister_extension_type("unregistered")
    with pytest.raises(ValueUnavailableError, match="not registered in this process: unregistered"):
        store.get(stored, key="a")


HOOKS = {
    "__reduce__": lambda self: (type(self), ()),
    "__setstate__": lambda self, state: self.__dict__.update(state),
    "__getstate__": lambda self: {"a": 1},
    "__getattr__": lambda self, name: object.__getattribute__(self, "a")[name],
    "__new__": lambda cls, *given: object.__new__(cls),
    "__init__": lambda self, a=1, *more: self.__dict__.update(a=a),
    "__eq__": lambda self, other: True,
    "__hash__": lambda self: 1,
}
BASES = (object, dict, list, Exception, ValueError, OSError)


@given(
    st.sets(st.sampled_from(sorted(HOOKS))),
    st.sets(st.sampled_from(sorted(HOOKS))),
    st.sampled_from(BASES),
    st.integers(0, 3),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_class_defines_it_comes_back_or_is_refused(store, hooks, broken, base, arguments):
    space = {name: HOOKS[name] for name in hooks} | {
        name: lambda self, *given: 1 / 0 for name in broken if name not in {"__init__", "__new__"}
    }
    if "__eq__" in space:
        space.setdefault("__hash__", object.__hash__)
    kind = type("Random", (base,), {**space, "__module__": __name__})
    sys.modules[__name__].Random = kind
    try:
        value = kind(*range(arguments))
    except Exception:
        return
    try:
        stored = store.put([value], key="a", memo_key="m")
    except UnstorableValueError:
        return
    assert type(store.get(stored, key="a")[0]) is kind
