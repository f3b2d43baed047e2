"""How steps end: success, failure, skipped and untouched ones (the rules of the model, section on step outcomes)."""

import pytest

import stepwell
from stepwell import (
    AssetIn,
    AssetOut,
    GraphOut,
    In,
    Nothing,
    Out,
    Output,
    asset,
    graph,
    graph_asset,
    job,
    multi_asset,
    op,
)
from stepwell.kernel_runtime.errors import (
    InvariantViolationError,
    StepOutputNotFoundError,
    TypeCheckError,
    UnknownKeyError,
    UnstorableValueError,
    ValueUnavailableError,
)


def statuses(result):
    return {step.key: step.status for step in result.steps}


@op(out={"yes": Out(is_required=False), "no": Out(is_required=False)})
def choose():
    yield Output("value", "yes")


@op
def one():
    return 1


@op
def boom():
    raise ValueError("no luck")


@op
def take(x):
    return x


@op
def gather(values):
    return list(values)


@op(ins={"start": In(Nothing)})
def after():
    return "done"


# -- rule 1: a failure


def test_dependents_of_a_failure_are_untouched_and_independent_steps_run(store_dir):
    @job
    def run():
        take(boom())
        take.alias("later")(take.alias("next")(boom.alias("boom2")()))
        take.alias("fine")(one())
        after(boom.alias("boom3")())

    result = run.execute(store=store_dir, raise_on_error=False)
    assert statuses(result) == {
        "boom": "failed",
        "take": "untouched",
        "boom2": "failed",
        "next": "untouched",
        "later": "untouched",
        "one": "executed",
        "fine": "executed",
        "boom3": "failed",
        "after": "untouched",
    }
    assert (result.success, result.status) == (False, "failure")
    assert isinstance(result.error, ValueError)
    assert result.value("fine") == 1
    record = result.step("boom").error
    assert (record.name, record.message) == ("ValueError", "no luck")
    assert "test_outcomes.py" in record.where
    assert "kernel_runtime" not in record.traceback


def test_the_users_own_exception_is_raised_again_with_a_note(store_dir):
    mine = KeyError("carrier")

    @asset
    def broken():
        raise mine

    with pytest.raises(KeyError) as caught:
        stepwell.materialize([broken], store=store_dir)
    assert caught.value is mine
    run_id = stepwell.last_run().run_id
    (note,) = mine.__notes__
    assert "broken" in note
    assert f"stepwell.resume({run_id!r})" in note


# -- rules 2 and 3: optional outputs and fan-in


def test_what_follows_an_output_that_was_not_produced_is_skipped(store_dir):
    @job
    def run():
        yes, no = choose()
        take.alias("a")(yes)
        take.alias("c")(take.alias("b")(no))
        after(no)
        gather.alias("both")([yes, no])
        gather.alias("none")([no, take.alias("d")(no)])

    result = run.execute(store=store_dir)
    assert result.success
    assert statuses(result) == {
        "choose": "executed",
        "a": "executed",
        "b": "skipped",
        "c": "skipped",
        "after": "skipped",
        "both": "executed",
        "d": "skipped",
        "none": "skipped",
    }
    assert result.value("both") == ["value"]
    with pytest.raises(UnknownKeyError):
        result.value("b")


def test_a_fan_in_keeps_its_order_and_does_not_run_with_a_failed_member(store_dir):
    @job
    def run():
        yes, no = choose()
        gather([one.alias("x")(), no, yes, one.alias("y")()])
        gather.alias("broken")([one.alias("z")(), boom()])
        after.alias("order")([no, yes])
        gather.alias("empty")([])

    result = run.execute(store=store_dir, raise_on_error=False)
    assert result.value("gather") == [1, "value", 1]
    assert result.step("broken").status == "untouched"
    assert result.step("order").status == "executed"
    assert result.value("empty") == []


def test_a_failed_upstream_outweighs_a_skipped_one(store_dir):
    @op
    def both(a, b):
        return a, b

    @job
    def run():
        _, no = choose()
        both(no, boom())
        both.alias("turned")(boom.alias("boom2")(), no)

    assert statuses(run.execute(store=store_dir, raise_on_error=False)) | {
        "both": "untouched",
        "turned": "untouched",
    } == statuses(stepwell.last_run())


def test_assets_with_optional_outputs(store_dir):
    @asset(output_required=False)
    def maybe():
        if False:
            yield Output(1)

    @multi_asset(outs={"p": AssetOut(is_required=False), "q": AssetOut(is_required=False)})
    def some():
        yield Output(5, "p")

    @asset
    def reads(maybe):
        return maybe

    @asset(deps=["maybe"])
    def follows():
        return 1

    @asset
    def after_q(q):
        return q

    @asset
    def after_p(p):
        return p

    result = stepwell.materialize([maybe, some, reads, follows, after_q, after_p], store=store_dir)
    assert result.success
    assert statuses(result) == {
        "maybe": "executed",
        "some": "executed",
        "reads": "skipped",
        "follows": "skipped",
        "after_q": "skipped",
        "after_p": "executed",
    }
    assert result.value("after_p") == 5


# -- rule 4: outputs


def test_a_required_output_must_be_produced(store_dir):
    @multi_asset(outs={"p": AssetOut(), "q": AssetOut()})
    def some():
        yield Output(5, "p")

    with pytest.raises(StepOutputNotFoundError, match="'q'") as caught:
        stepwell.materialize([some], store=store_dir)
    assert "is_required=False" in caught.value.remedy
    # What was yielded before the failure is kept.
    assert stepwell.load("p", store=store_dir) == 5


def test_several_outputs_returned_as_nothing_at_all(store_dir):
    @op(out={"a": Out(), "b": Out()})
    def returns_none():
        return None

    @op(out={"a": Out(Nothing), "b": Out(Nothing)})
    def nothings():
        return None

    @job
    def run():
        returns_none()
        nothings()

    result = run.execute(store=store_dir, raise_on_error=False)
    assert statuses(result) == {"returns_none": "failed", "nothings": "executed"}
    assert isinstance(result.error, StepOutputNotFoundError)


def make(body, **out):
    return op(name="body", out={name: Out(is_required=False) for name in ("p", "q")} | out)(body)


def twice():
    yield Output(1, "p")
    yield Output(2, "p")


def unknown():
    yield Output(1, "x")


def plain_yield():
    yield 3


def scalar():
    return 5


def three():
    return 1, 2, 3


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (twice, "'p' twice"),
        (unknown, "'x', which is not declared"),
        (plain_yield, "yielded a value of type int"),
        (scalar, "returned a value of type int"),
        (three, "3 values"),
    ],
)
def test_what_is_no_declared_output_breaks_the_step(store_dir, body, match):
    made = make(body)

    @job
    def run():
        made()

    with pytest.raises(InvariantViolationError, match=match):
        run.execute(store=store_dir)


def test_nothing_outputs_and_inputs(store_dir):
    seen = []

    @op(out=Out(Nothing))
    def acts():
        seen.append("acts")

    @op(out=Out(Nothing))
    def wrong():
        return 3

    @op(ins={"start": In(Nothing)})
    def follows(x):
        seen.append("follows")
        return x

    @job
    def run():
        follows(one(), start=acts())
        wrong()

    with pytest.raises(TypeCheckError, match="value of type int for the output 'result'"):
        run.execute(store=store_dir)
    assert seen == ["acts", "follows"]
    with pytest.raises(ValueUnavailableError):
        stepwell.last_run().value("acts")


def test_an_asset_annotated_none_has_no_value_and_one_that_returns_none_has(store_dir):
    @asset
    def acts() -> None:
        pass

    @asset
    def plain():
        return None

    @asset
    def reads_plain(plain):
        return plain is None

    @asset(deps=["acts"])
    def follows():
        return 1

    @asset
    def reads_acts(acts):
        return acts

    result = stepwell.materialize([acts, plain, reads_plain, follows], store=store_dir)
    assert result.value("reads_plain") is True
    assert result.value("plain") is None
    with pytest.raises(ValueUnavailableError, match=r"deps=\['acts'\]"):
        stepwell.materialize([acts, reads_acts], store=store_dir)


def test_what_was_yielded_before_a_raise_stays(store_dir):
    @multi_asset(outs={"p": AssetOut(), "q": AssetOut()})
    def some():
        yield Output(5, "p")
        raise OSError("disk")

    @asset
    def reads(p):
        return p

    result = stepwell.materialize([some, reads], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"some": "failed", "reads": "untouched"}
    assert stepwell.load("p", store=store_dir) == 5
    # It is no result that a later run could reuse.
    assert statuses(stepwell.materialize([some], store=store_dir, raise_on_error=False)) == {"some": "failed"}


def test_one_value_per_output_in_a_tuple_of_plain_values_and_outputs(store_dir):
    @multi_asset(outs={"p": AssetOut(), "q": AssetOut()})
    def some():
        return Output(5, "p", metadata={"rows": 5}), 6

    result = stepwell.materialize([some], store=store_dir)
    assert (result.value("p"), result.value("q")) == (5, 6)
    assert result.materialization("p").metadata == {"rows": 5}


# -- types


@pytest.mark.parametrize(("hint", "value"), [(float, 1), (list[int], [1, "a"]), (str, None), (dict[str, int], {"a": "b"})])
def test_a_value_of_another_type_fails_the_step(store_dir, hint, value):
    def body():
        return value

    body.__annotations__["return"] = hint
    made = asset(name="typed")(body)
    with pytest.raises(TypeCheckError, match="'typed'"):
        stepwell.materialize([made], store=store_dir)
    with pytest.raises(ValueUnavailableError):
        stepwell.load("typed", store=store_dir)


def test_a_bool_is_an_int_and_list_members_are_checked(store_dir):
    @asset
    def flag() -> int:
        return True

    @asset
    def numbers(flag: int) -> list[int]:
        return [flag, 2]

    @asset
    def wants_text(numbers: list[str]):
        return numbers

    result = stepwell.materialize([flag, numbers, wants_text], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"flag": "executed", "numbers": "executed", "wants_text": "failed"}
    assert isinstance(result.error, TypeCheckError)
    assert "input 'numbers'" in str(result.error)


def test_a_number_wired_to_text_is_allowed_and_fails_at_run_time(store_dir):
    @op
    def number() -> int:
        return 1

    @op
    def text(x: str):
        return x

    @job
    def run():
        text(number())

    result = run.execute(store=store_dir, raise_on_error=False)
    assert statuses(result) == {"number": "executed", "text": "failed"}


# -- kinds of bodies


def test_generators_async_bodies_and_async_generators(store_dir):
    import asyncio

    @asset
    async def later():
        await asyncio.sleep(0)
        return 1

    @multi_asset(outs={"p": AssetOut(), "q": AssetOut()})
    async def stream(later):
        yield Output(later, "p")
        await asyncio.sleep(0)
        yield Output(later + 1, "q")

    @asset
    def wrapped(q):
        yield Output(q + 1)

    @asset
    async def fails(q):
        raise OSError("async")

    result = stepwell.materialize([later, stream, wrapped], store=store_dir)
    assert [result.value(key) for key in ("later", "p", "q", "wrapped")] == [1, 1, 2, 3]
    with pytest.raises(OSError, match="async"):
        stepwell.materialize([later, stream, fails], store=store_dir)


def test_an_async_body_that_exits_fails_and_later_async_steps_run(store_dir):
    @asset
    async def leaves():
        raise SystemExit(3)

    @asset
    async def works():
        return 1

    result = stepwell.materialize([leaves, works], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"leaves": "failed", "works": "executed"}
    assert isinstance(result.error, SystemExit)


# -- graphs


def test_nested_graphs_outputs_and_defaults(store_dir):
    @op
    def scale(x, by=10, *, plus=0):
        return x * by + plus

    @graph
    def inner(x):
        return scale(x, plus=1)

    @graph(out={"small": GraphOut(), "large": GraphOut()})
    def outer(x):
        first = inner(x)
        return {"small": first, "large": inner.alias("again")(first)}

    @job
    def run():
        small, large = outer(one())
        gather([small, large])

    result = run.execute(store=store_dir)
    assert list(statuses(result)) == ["one", "outer.inner.scale", "outer.again.scale", "gather"]
    assert result.value("gather") == [11, 111]
    assert result.value("outer.inner.scale") == 11
    assert stepwell.load("run.outer.inner.scale", store=store_dir) == 11


def test_a_failing_step_inside_a_graph_asset(store_dir):

    @op
    def fetch(source):
        return [source]

    @op
    def transform(rows):
        raise RuntimeError("bad rows")

    @asset
    def source():
        return 1

    @graph_asset
    def report(source):
        return transform(fetch(source))

    @asset
    def mail(report):
        return 1

    result = stepwell.materialize([source, report, mail], store=store_dir, raise_on_error=False)
    assert statuses(result) == {
        "source": "executed",
        "report.fetch": "executed",
        "report.transform": "failed",
        "mail": "untouched",
    }
    with pytest.raises(ValueUnavailableError):
        stepwell.load("report", store=store_dir)
    result = stepwell.materialize([source, report, mail], store=store_dir, raise_on_error=False)
    assert statuses(result)["report.fetch"] == "reused"


def test_asset_values_reach_graph_assets_by_in(store_dir):
    @asset(key_prefix="raw")
    def flights():
        return [1, 2]

    @graph_asset(ins={"rows": AssetIn("raw/flights")}, key_prefix="out")
    def count(rows):
        return take(rows)

    result = stepwell.materialize([flights, count], store=store_dir)
    assert statuses(result) == {"raw/flights": "executed", "out/count.take": "executed"}
    assert result.value("out/count") == [1, 2]


# -- what cannot be stored


def test_an_asset_that_cannot_be_stored_fails_its_step(store_dir):
    import threading

    @asset
    def lock():
        return threading.Lock()

    @asset
    def reads(lock):
        return 1

    result = stepwell.materialize([lock, reads], store=store_dir, raise_on_error=False)
    assert statuses(result) == {"lock": "failed", "reads": "untouched"}
    assert isinstance(result.error, UnstorableValueError)
    assert "lock" in str(result.error)


def test_a_jobs_values_pass_in_memory_even_if_they_cannot_be_stored(store_dir):
    import threading

    kept = []

    @op
    def lock():
        kept.append(threading.Lock())
        return kept[0]

    @op
    def same(x):
        return x is kept[0]

    @job
    def run():
        same(lock())

    result = run.execute(store=store_dir)
    assert result.value("same") is True
    assert result.value("lock") is kept[0]
    assert result.step("lock").not_kept == ("result: lock",)


def test_values_of_a_step_with_several_outputs_are_told_apart(store_dir):
    @op(out={"first": Out(), "second": Out()})
    def pair():
        return 1, 2

    @graph_asset
    def report():
        first, second = pair()
        return gather([first, second])

    @job
    def run():
        pair()

    result = stepwell.materialize([report], store=store_dir)
    assert [result.value(key) for key in ("report.pair:first", "report.pair:second", "report", "report.gather")] == [
        1,
        2,
        [1, 2],
        [1, 2],
    ]
    with pytest.raises(UnknownKeyError, match=r"'report\.pair'") as caught:
        result.value("report.pair")
    assert "report.pair:first" in caught.value.remedy
    result = run.execute(store=store_dir)
    assert (result.value("pair:first"), result.value("run.pair:second")) == (1, 2)
