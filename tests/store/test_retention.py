"""The rules of what is kept, as a function from rows to ids; whatever they say, some rows stay."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell.kernel_runtime.errors import InvalidInvocationError
from stepwell.kernel_runtime.records.maintenance import STORE, Rule
from stepwell.kernel_runtime.store.retention import Kept, ids_to_drop, read_age, read_bytes, read_versions


def row(number, key="a", *, notebook="n", partition="", run_id="r", created=0.0, version=None, size=10, **metadata):
    version = str(number) if version is None else version
    return Kept(str(number), key, notebook, partition, run_id, created, version, version, size, metadata)


def gone(rows, now=100.0, current=(), running=(), **rules):
    return ids_to_drop(
        rows, {key.replace("__", "."): rule for key, rule in rules.items()}, now=now, current=current, running=running
    )


def test_the_newest_different_values_of_each_key_notebook_and_partition_stay():
    rows = [row(0), row(1, version="x"), row(2, version="x"), row(3), row(4, notebook="m"), row(5, partition="p")]
    assert gone(rows, a=Rule(versions=2)) == {"0"}
    assert gone(rows, a=Rule(versions=1)) == {"0", "1", "2"}
    assert gone(rows, a=Rule(versions=3)) == set()
    assert gone(rows, b=Rule(versions=1)) == set()


def test_ages_are_those_of_the_rows_and_the_newest_stays():
    rows = [row(0, created=0), row(1, created=50), row(2, created=60)]
    assert gone(rows, a=Rule(age=45)) == {"0", "1"}
    assert gone(rows, a=Rule(age=1)) == {"0", "1"}
    assert gone(rows, now=0, a=Rule(age=1)) == set()


def test_bytes_count_each_value_once_and_drop_the_oldest_first():
    rows = [row(0), row(1, version="x"), row(2, version="x"), row(3), row(4)]
    assert gone(rows, a=Rule(bytes=30)) == {"0"}
    assert gone(rows, a=Rule(bytes=29)) == {"0", "1", "2"}
    assert gone(rows, a=Rule(bytes=0)) == {"0", "1", "2", "3"}


def test_a_keys_rule_comes_before_the_stores_and_holds_for_the_steps_inside():
    rows = [row(n, key) for n, key in enumerate(["a.x", "a.x", "a.x", "b", "b", "b"])]
    rules = {STORE: Rule(versions=1), "a": Rule(versions=2)}
    assert ids_to_drop(rows, rules, now=0, current=(), running=()) == {"0", "3", "4"}
    assert ids_to_drop(rows, {STORE: Rule(bytes=40)}, now=0, current=(), running=()) == {"0", "1"}


def test_what_a_run_that_goes_on_has_made_stays():
    rows = [row(0, run_id="going"), row(1), row(2)]
    assert gone(rows, running={"going"}, a=Rule(versions=1)) == {"1"}


def test_an_acceptance_keeps_what_it_was_made_of_and_what_takes_it_back():
    accepted = {"stepwell:accepted": {"of": "0"}}
    revoked = {"stepwell:revoked": "acc"}
    rows = [
        row(0, version="x"),
        row(1, version="y"),
        row(2, version="x", run_id="acc", **accepted),
        row(3, version="", **revoked),
    ]
    assert gone(rows, a=Rule(age=1), current={"2"}) == {"1"}
    # Once the acceptance itself goes, nothing of it is needed; the revocation is the newest row.
    assert gone([*rows, row(4)], a=Rule(age=1)) == {"0", "1", "2", "3"}
    # A row that takes an acceptance back never goes before it: it would hold again.
    assert "3" not in gone([*rows, row(4)], a=Rule(age=1), current={"2"})


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from(["a", "a.s", "b"]),
            st.sampled_from("nm"),
            st.sampled_from(["", "p"]),
            st.integers(0, 3),
            st.integers(0, 100),
        ),
        max_size=25,
    ),
    rules=st.dictionaries(
        st.sampled_from([STORE, "a", "b"]),
        st.builds(
            Rule,
            versions=st.none() | st.integers(1, 3),
            age=st.none() | st.floats(1, 100),
            bytes=st.none() | st.integers(0, 60),
        ),
    ),
    current=st.sets(st.integers(0, 24).map(str)),
)
def test_nothing_that_must_stay_is_ever_dropped(rows, rules, current):
    made = [row(n, key, notebook=nb, partition=p, version=f"v{v}", created=t) for n, (key, nb, p, v, t) in enumerate(rows)]
    found = ids_to_drop(made, rules, now=100.0, current=current, running=())
    assert not found & current
    newest = {(each.key, each.notebook, each.partition): each.id for each in made}
    assert not found & set(newest.values())
    if all(rule.empty for rule in rules.values()):
        assert not found
    # Once applied, the rules have nothing more to say about rows that are not protected by what went.
    left = [each for each in made if each.id not in found]
    assert ids_to_drop(left, rules, now=100.0, current=current, running=()) == set()


@pytest.mark.parametrize(
    ("read", "given_", "found"),
    [
        (read_versions, "3", 3), (read_versions, 1, 1), (read_versions, None, None),
        (read_age, "30d", 30 * 86400), (read_age, "1.5h", 5400), (read_age, 7, 7.0), (read_age, "2w", 14 * 86400),
        (read_bytes, "10GB", 10**10), (read_bytes, "1.5 MiB", 3 << 19), (read_bytes, 5, 5), (read_bytes, "5", 5),
    ],
)  # fmt: skip
def test_limits_are_read_as_people_write_them(read, given_, found):
    assert read(given_) == found


@pytest.mark.parametrize(
    ("read", "given_"),
    [
        (read_versions, 0), (read_versions, "x"), (read_versions, -1), (read_versions, True), (read_versions, 1.5),
        (read_age, "30"), (read_age, "d"), (read_age, -1), (read_age, 0), (read_age, float("inf")), (read_age, float("nan")),
        (read_bytes, "10 potatoes"), (read_bytes, -1), (read_bytes, ""), (read_bytes, True), (read_bytes, "1.2.3GB"),
    ],
)  # fmt: skip
def test_other_limits_are_refused(read, given_):
    with pytest.raises(InvalidInvocationError):
        read(given_)
