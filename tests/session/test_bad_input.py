"""Each wrong request is an error of our own class that says what, where and what to do; nothing is changed by it."""

import os

import pytest

import stepwell
from stepwell import AssetOut, Output, SourceAsset, asset, job, multi_asset, op
from stepwell.kernel_runtime.errors import (
    CycleError,
    DuplicateKeyError,
    InvalidDefinitionError,
    InvalidInvocationError,
    InvalidSelectionError,
    MissingUpstreamError,
    StepwellError,
    StoreDamagedError,
    StoreError,
    StoreNotWritableError,
    UnknownKeyError,
    ValueUnavailableError,
)
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store import housekeeping


@asset
def raw():
    return 1


@asset
def clean(raw):
    return raw


@pytest.fixture
def refused(store_dir):
    """Call something that must be refused; check the message, and that registry and store are as they were."""
    session = get_session()

    def check(kind, call, *words):
        before = dict(session.registry.assets), dict(session.registry.jobs)
        existed = store_dir.exists()
        rows = housekeeping.sizes(stepwell.get_session().open(store_dir)) if existed else None
        with pytest.raises(kind) as caught:
            call()
        error = caught.value
        assert isinstance(error, StepwellError)
        text = str(error)
        for word in words:
            assert word in text, text
        assert len(text.splitlines()) <= 5
        assert error.remedy, "the message must say what to do"
        assert (dict(session.registry.assets), dict(session.registry.jobs)) == before
        assert store_dir.exists() is existed
        if existed:
            assert housekeeping.sizes(stepwell.get_session().open(store_dir)) == rows
        return error

    return check


@pytest.fixture(params=["no store", "a store"])
def either(request, store_dir):
    if request.param == "a store":
        stepwell.materialize([raw, clean], store=store_dir)


def test_an_unknown_asset(refused, either, store_dir):
    refused(
        UnknownKeyError,
        lambda: stepwell.materialize(["claen", raw, clean], store=store_dir),
        "claen",
        "did you mean clean",
    )
    refused(UnknownKeyError, lambda: stepwell.materialize(["+claen"], definitions=[raw, clean], store=store_dir), "clean")
    refused(UnknownKeyError, lambda: stepwell.why("claen", definitions=[raw, clean], store=store_dir), "clean")


def test_an_unknown_key_in_the_store(refused, store_dir):
    stepwell.materialize([raw, clean], store=store_dir)
    refused(ValueUnavailableError, lambda: stepwell.load("claen", store=store_dir), "claen", "clean", str(store_dir))
    with pytest.raises(UnknownKeyError, match="clean"):
        stepwell.last_run().value("claen")
    with pytest.raises(UnknownKeyError, match="clean"):
        stepwell.last_run().step("claen")
    # Only the name of a job may precede the key of a step.
    with pytest.raises(UnknownKeyError):
        stepwell.last_run().step(f"{stepwell.last_run().run.targets[0]}.clean")


def test_a_selection_that_cannot_be_read(refused, either, store_dir):
    refused(
        InvalidSelectionError,
        lambda: stepwell.materialize("raw,clean", definitions=[raw, clean], store=store_dir),
        "'raw,clean' is invalid",
        "pass a list in Python",
    )


def test_a_cycle(refused, either, store_dir):
    @asset
    def egg(chicken):
        return 1

    @asset
    def chicken(nest):
        return 1

    @asset(deps=["egg"])
    def nest():
        return 1

    error = refused(
        CycleError,
        lambda: stepwell.materialize([egg, chicken, nest], store=store_dir),
        "depend on each other in a cycle",
        "test_bad_input.py",
    )
    for name in ("egg", "chicken", "nest"):
        assert name in error.what


def test_a_key_twice_in_one_list(refused, either, store_dir):
    other = asset(name="clean")(lambda: 2)
    refused(
        DuplicateKeyError,
        lambda: stepwell.materialize([clean, raw, other], store=store_dir),
        "two definitions have the asset key clean",
        "test_bad_input.py",
    )
    refused(DuplicateKeyError, lambda: stepwell.materialize([clean, raw, SourceAsset("clean")], store=store_dir), "clean")
    refused(DuplicateKeyError, lambda: stepwell.materialize([clean], definitions=[raw, other], store=store_dir), "clean")
    # The same definition twice is no contradiction.
    assert len(stepwell.materialize([raw, clean, clean], definitions=[raw], store=store_dir).steps) == 2


def test_two_steps_of_one_name(refused, either, store_dir):
    @multi_asset(outs={"a": AssetOut(), "b": AssetOut()}, name="clean")
    def parts():
        yield Output(1, "a")
        yield Output(2, "b")

    refused(
        DuplicateKeyError,
        lambda: stepwell.materialize([parts, raw, clean], store=store_dir),
        "two steps have the key 'clean'",
        "test_bad_input.py",
    )


def test_a_missing_upstream(refused, store_dir):
    stepwell.materialize([raw, clean], store=store_dir)

    @asset
    def below(nowhere):
        return 1

    refused(
        MissingUpstreamError,
        lambda: stepwell.materialize([below, raw, clean], store=store_dir),
        "'below' reads the asset 'nowhere'",
        "neither defined nor stored",
        "test_bad_input.py",
    )

    @op
    def take(x):
        return x

    @job
    def run():
        take(SourceAsset("cleen"))

    refused(MissingUpstreamError, lambda: run.execute(store=store_dir), "cleen", "did you mean clean")


def test_an_upstream_that_is_defined_but_not_materialized(refused, store_dir):
    @asset
    def other():
        return 1

    stepwell.materialize([other], store=store_dir)
    refused(
        MissingUpstreamError,
        lambda: stepwell.materialize([clean], definitions=[raw], store=store_dir, upstream=False),
        "'raw', which is not materialized",
        "stepwell.materialize(['raw'])",
    )


def test_targets_and_definitions_of_the_wrong_kind(refused, either, store_dir):
    @op
    def one():
        return 1

    @job
    def run():
        one()

    refused(InvalidInvocationError, lambda: stepwell.materialize([run], store=store_dir), "'run' is a job", "run.execute()")
    for wrong in (3, one, len):
        refused(
            InvalidInvocationError,
            lambda wrong=wrong: stepwell.materialize([wrong], store=store_dir),
            type(wrong).__name__,
        )
        refused(
            InvalidInvocationError,
            lambda wrong=wrong: stepwell.materialize([raw], definitions=[wrong], store=store_dir),
            type(wrong).__name__,
        )


def test_names_that_are_no_identifiers(refused):
    for name in ("größe", "a b", "a-b", "a/b"):
        refused(InvalidDefinitionError, lambda name=name: asset(name=name)(lambda: 1), name)


def test_reading_from_where_no_store_is(refused, store_dir):
    for call in (
        lambda: stepwell.load("raw", store=store_dir),
        lambda: stepwell.resume("run", store=store_dir),
        lambda: stepwell.rerun(["raw"], definitions=[raw], store=store_dir),
        lambda: get_session().states([raw], store=store_dir),
    ):
        refused(StoreError, call, "there is no store in", str(store_dir))


def test_a_store_directory_that_cannot_be_written(refused, store_dir, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", "/proc/nothing/store"):
        refused(StoreNotWritableError, lambda place=place: stepwell.materialize([raw], store=place), str(place))
    assert os.path.isfile(tmp_path / "file")  # noqa: PTH113


def test_a_store_of_a_newer_format(python, store_dir):
    stepwell.materialize([raw], store=store_dir)
    stepwell.get_session().open(store_dir).close()
    python(
        """
        import duckdb, sys
        connection = duckdb.connect(sys.argv[1])
        connection.execute("UPDATE meta SET format = 999")
        connection.close()
        """,
        store_dir / "catalog.duckdb",
    )
    error = python("import stepwell, sys\nstepwell.load('raw', store=sys.argv[1])", store_dir, fails=True)
    assert "StoreFormatError" in error
    assert "written by a newer version of Stepwell" in error
    assert "upgrade" in error


def test_a_damaged_catalog(refused, tmp_path):
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "catalog.duckdb").write_bytes(b"not a catalog" * 1000)
    refused(StoreDamagedError, lambda: stepwell.materialize([raw], store=damaged), str(damaged))
    assert (damaged / "catalog.duckdb").read_bytes() == b"not a catalog" * 1000


def test_keys_and_runs_may_be_given_as_objects_and_nothing_else(refused, store_dir):
    stepwell.materialize([raw, clean], store=store_dir)
    for key in ("clean", clean, clean.key, clean.to_source_asset()):
        assert stepwell.load(key, store=store_dir) == 1
    for keys in (clean, [clean], clean.key, "clean", ["clean"]):
        result = stepwell.rerun(keys, definitions=[raw, clean], store=store_dir)
        assert [step.key for step in result.steps] == ["clean"]
    for wrong in (None, 3, b"clean"):
        refused(InvalidInvocationError, lambda wrong=wrong: stepwell.load(wrong, store=store_dir), type(wrong).__name__)
    refused(InvalidInvocationError, lambda: stepwell.resume(result, store=store_dir), "RunResult")
    refused(InvalidInvocationError, lambda: stepwell.rerun([], store=store_dir), "rerun(['report.transform'])")


def test_a_misspelt_step_of_a_known_asset_names_the_nearest(store_dir):
    @stepwell.op
    def fetch():
        return 1

    @stepwell.graph_asset
    def report():
        return fetch()

    stepwell.materialize([report], store=store_dir)
    with pytest.raises(UnknownKeyError, match=r"did you mean report\.fetch"):
        stepwell.rerun("report.fecth", definitions=[report], store=store_dir)
