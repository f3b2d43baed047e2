"""Definitions to plans: which steps, in which order, with which inputs, and what they read from the store."""

import random

import pytest

from stepwell import AssetOut, SourceAsset, asset, graph_asset, job, multi_asset, op
from stepwell.kernel_runtime.errors import CycleError, DuplicateKeyError, InvalidDefinitionError, UnknownKeyError
from stepwell.kernel_runtime.planning.build import (
    Definitions,
    build_job_plan,
    build_plan,
    finish,
    resolve_targets,
    step_owner,
)
from stepwell.kernel_runtime.planning.plan import Plan, asset_steps, order_steps
from stepwell.kernel_runtime.versions.walk import CodeWalk


def named(*definitions):
    return Definitions({str(key): each for each in definitions for key in getattr(each, "keys", None) or [each.key]})


def plan(targets, *definitions, **options):
    return build_plan(targets, named(*definitions), CodeWalk(), **options)


def keys(plan):
    return [step.key for step in plan.steps]


@asset
def raw():
    return 1


@asset
def clean(raw):
    return raw


@asset(deps=["clean"])
def published():
    return 0


@asset
def lone():
    return 0


@op
def total(values):
    return sum(values)


@op
def shift(value, by: int = 1):
    return value + by


@graph_asset
def report(clean):
    return shift(total([clean, clean]))


def test_a_plan_has_the_targets_and_everything_upstream():
    found = plan(["report"], report, published, clean, raw, lone)
    assert keys(found) == ["raw", "clean", "report.total", "report.shift"]
    assert found.target_steps == {"report.total", "report.shift"}
    assert found.read_keys == ()
    assert keys(plan(["published"], published, clean, raw)) == ["raw", "clean", "published"]


def test_without_upstream_it_is_read_from_the_store():
    found = plan(["report"], report, clean, raw, upstream=False)
    assert (keys(found), found.read_keys) == (["report.total", "report.shift"], ("clean",))
    single = plan(["report"], report, clean, raw, steps_only={"report.shift"})
    assert (keys(single), single.read_keys) == (["report.shift"], ("report.total",))
    assert plan(["clean"], clean, SourceAsset("raw")).read_keys == ("raw",)


def test_inputs_carry_values_or_only_an_order():
    by_key = {step.key: step for step in plan(["report", "published"], report, published, clean, raw).steps}
    assert [(given.name, given.keys, given.carries_value) for given in by_key["published"].inputs] == [("", ("clean",), False)]
    (fan_in,) = by_key["report.total"].inputs
    assert (fan_in.name, fan_in.keys, fan_in.fan_in) == ("values", ("clean", "clean"), True)
    value, by = by_key["report.shift"].inputs
    assert (value.keys, by.keys, by.default) == (("report.total",), (), 1)


def test_independent_steps_keep_their_order_and_all_others_come_after_what_they_take():
    chance = random.Random(3)
    for _ in range(30):
        steps = []
        for index in range(12):
            upstream = [f"s{i}" for i in chance.sample(range(index), min(index, chance.randint(0, 3)))]
            space = {}
            exec(f"def s{index}({', '.join(upstream)}): return 1", space)
            steps += asset_steps(asset(space[f"s{index}"]))
        in_order = [step.key for step in steps]
        assert [step.key for step in order_steps(steps)[0]] == in_order
        chance.shuffle(steps)
        ordered, cycle = order_steps(steps)
        place = {step.key: position for position, step in enumerate(ordered)}
        assert not cycle
        assert len(place) == 12
        assert all(place[key] < place[step.key] for step in ordered for key in step.input_keys)


def test_a_cycle_names_its_assets():
    @asset
    def first(second):
        return second

    @asset
    def second(first):
        return first

    with pytest.raises(CycleError, match=r"first -> second -> first|second -> first -> second"):
        plan(["first"], first, second)


def test_two_steps_cannot_give_one_value():
    steps = (*asset_steps(raw), *asset_steps(raw))
    with pytest.raises(DuplicateKeyError, match="'raw'"):
        finish(Plan("assets", ("raw",), steps))


def test_a_parameter_takes_its_default_where_nothing_defines_the_asset():
    @asset
    def scaled(raw, factor=2):
        return raw * factor

    @asset
    def factor():
        return 3

    without = plan(["scaled"], scaled, raw)
    assert [(given.keys, given.default) for given in without.steps[-1].inputs][1] == ((), 2)
    assert keys(plan(["scaled"], scaled, raw, factor)) == ["raw", "factor", "scaled"]


def test_the_steps_of_a_job_are_not_memoised_and_their_addresses_name_it():
    @op(cache=True)
    def fetch():
        return [1, 2]

    @job
    def nightly():
        shift(total(fetch()))

    found = build_job_plan(nightly, CodeWalk())
    assert [(step.key, step.address, step.memoised) for step in found.steps] == [
        ("fetch", "nightly.fetch", True),
        ("total", "nightly.total", False),
        ("shift", "nightly.shift", False),
    ]
    assert [step.code is not None for step in found.steps] == [True, False, False]


def test_an_op_input_without_a_connection_needs_a_default():
    @job
    def broken():
        total()

    with pytest.raises(InvalidDefinitionError, match="'values' is not connected"):
        build_job_plan(broken, CodeWalk())


def test_targets_are_keys_step_keys_and_selections():
    @multi_asset(outs={"train": AssetOut(), "test": AssetOut()})
    def split(clean):
        return clean, clean

    found = named(report, split, published, clean, raw, lone)
    assert resolve_targets(["report.total"], found) == ["report"]
    assert set(resolve_targets(["split"], found)) == {"train", "test"}
    assert set(resolve_targets(["+clean", "lone"], found)) == {"raw", "clean", "lone"}
    assert set(resolve_targets(None, found)) == {"report", "train", "test", "published", "clean", "raw", "lone"}
    with pytest.raises(UnknownKeyError, match="claen"):
        resolve_targets(["claen"], found)
    assert step_owner("report.shift", found) is report
    assert step_owner("report.other", found) is None


def test_a_plan_gives_each_step_its_code_version():
    found = plan(["report"], report, clean, raw)
    assert all(step.code is not None and step.code.digest for step in found.steps)
    again = plan(["report"], report, clean, raw)
    assert [step.code.digest for step in found.steps] == [step.code.digest for step in again.steps]
    assert all(mine is not other for mine, other in zip(found.steps, again.steps, strict=True))
