"""The decision about one step, from the facts alone: no session, no store, no run."""

import time
from dataclasses import replace
from itertools import count

import pytest

from stepwell import AssetOut, asset, multi_asset
from stepwell.kernel_runtime.planning.build import finish
from stepwell.kernel_runtime.planning.decision import (
    DecisionFacts,
    choose_current,
    decide,
    may_be_reused,
    reason_to_run,
    refusal,
)
from stepwell.kernel_runtime.planning.plan import Plan, asset_steps
from stepwell.kernel_runtime.records.materializations import (
    REVOKED,
    CodeVersion,
    Current,
    Materialization,
    Read,
    StoredValue,
    Unverifiable,
)
from stepwell.kernel_runtime.records.runs import FailedAttempt, Snapshot

_ids = count()
FILE = Read("file", "/data.csv", "old")


@asset
def raw():
    return 1


@asset
def clean(raw):
    return raw


class Facts:
    """A plan of assets, and what a store would know of it."""

    def __init__(self, *definitions, targets=("clean",)):
        steps = [step for each in definitions or (raw, clean) for step in asset_steps(each)]
        for step in steps:
            step.code = CodeVersion("code") if step.memoised else None
        self.plan = finish(Plan("assets", targets, tuple(steps), target_steps=frozenset(targets)))
        self.decision_facts = DecisionFacts(Snapshot(), lambda read: read.digest == "now", vouches=lambda item: True)

    def step(self, key):
        return self.plan.step(key)

    def give(self, key, version="1"):
        """Let a step before have been decided, and have a value."""
        self.decision_facts.values[key] = materialization(key, data_version=version)

    def keep(self, key, **attributes):
        """Let the store have an execution of a step with its present inputs, newer than all before; return it."""
        step = self.step(key)
        memo = self.decision_facts.key(step, self.decision_facts.inputs(step))
        materializations = tuple(
            materialization(output.key, output=output.name, memo_key=memo, **attributes) for output in step.outputs
        )
        self.decision_facts.snapshot.by_memo_key.setdefault(memo, []).insert(0, materializations)
        for item in materializations:
            self.decision_facts.snapshot.current.setdefault(item.key, []).insert(0, Current(step.notebook, item.key, item))
        return materializations

    def decide(self, key="clean", kind="pull"):
        return decide(self.step(key), self.plan, self.decision_facts, kind)

    def outcome(self, key="clean", kind="pull"):
        found = self.decide(key, kind)
        return found.action, found.cause


def materialization(key, **attributes):
    number = next(_ids)
    plain = Materialization(
        f"m{number}", f"r{number}", key, key, "result", "", "", "code", "1",
        StoredValue("pickle", "d", 1, object_name=f"{key}.file"), time.time(), 1.0,
    )  # fmt: skip
    return replace(plain, **attributes)


def test_a_step_without_an_execution_under_its_memo_key_runs():
    facts = Facts()
    facts.give("raw")
    assert facts.outcome() == ("run", "changed")
    materializations = facts.keep("clean")
    assert (facts.decide().action, facts.decide().materializations) == ("reuse", materializations)
    facts.give("raw", "2")
    assert facts.outcome() == ("run", "changed")


def test_the_newest_execution_whose_reads_hold_is_reused():
    facts = Facts()
    facts.give("raw")
    oldest = facts.keep("clean", reads=(replace(FILE, digest="now"),))
    assert facts.decide().materializations == oldest
    facts.keep("clean", reads=(FILE,))
    assert facts.decide().materializations == oldest
    newest = facts.keep("clean")
    assert facts.decide().materializations == newest


@pytest.mark.parametrize(("upstream", "action"), [("wait", "wait"), ("untouched", "untouched")])
def test_a_step_waits_for_what_is_not_decided_and_never_starts_after_a_failure(upstream, action):
    facts = Facts()
    facts.give("raw")
    facts.keep("clean")
    facts.decision_facts.steps_without_value["raw"] = upstream
    assert facts.decide().action == facts.decide(kind="forced").action == action


def test_a_step_is_skipped_if_an_optional_output_that_it_needs_was_not_produced():
    @multi_asset(outs={"left": AssetOut(is_required=False), "right": AssetOut()})
    def both():
        return 1, 2

    @asset
    def after(left):
        return left

    @asset(deps=["left"])
    def ordered():
        return 1

    facts = Facts(both, after, ordered, targets=("after",))
    facts.give("right")
    assert facts.outcome("after") == facts.outcome("ordered") == ("skip", "")
    facts.give("left")
    assert facts.outcome("after") == facts.outcome("ordered") == ("run", "changed")


def test_an_input_that_nothing_gives_is_unavailable():
    facts = Facts(clean)
    assert facts.outcome() == ("unavailable", "")


def test_a_forced_step_runs_whatever_is_stored():
    facts = Facts()
    facts.give("raw")
    facts.keep("clean")
    assert facts.outcome(kind="forced") == ("run", "forced")


def test_a_lost_value_is_computed_again_only_for_steps_that_were_asked_for():
    facts = Facts()
    materializations = facts.keep("raw")
    facts.decision_facts.snapshot.missing_files = frozenset({"raw.file", "clean.file"})
    assert facts.outcome("raw") == ("reuse", "")
    facts.decision_facts.values["raw"] = materializations[0]
    facts.keep("clean")
    assert facts.outcome("clean") == ("run", "lost")
    assert facts.decide().obstacle == "clean: the value file is missing or truncated"


def test_a_cell_whose_effects_cannot_be_restored_runs():
    facts = Facts()
    facts.give("raw")
    materializations = facts.keep("clean")
    facts.decision_facts.restore_obstacle = lambda step, found, kind: "no kernel has it" if kind == "cell" else ""
    decision = facts.decide(kind="cell")
    assert (decision.action, decision.cause, decision.obstacle) == ("run", "unrestorable", "no kernel has it")
    assert decision.materializations == materializations
    assert facts.outcome() == ("reuse", "")


@pytest.mark.parametrize(
    ("options", "cause"),
    [({"volatile": True}, "volatile"), ({"cache": False}, "cache"), ({"max_age": 60}, "changed"), ({}, "")],
)
def test_options_of_an_asset_keep_it_from_being_reused(options, cause):
    @asset(**options)
    def prices():
        return 1

    facts = Facts(prices, targets=("prices",))
    facts.keep("prices", created=time.time() - 61)
    assert facts.outcome("prices") == (("run", cause) if cause else ("reuse", ""))


def test_an_execution_from_the_future_has_no_known_age():
    @asset(max_age=60)
    def prices():
        return 1

    facts = Facts(prices, targets=("prices",))
    facts.keep("prices", created=time.time() + 30)
    assert facts.outcome("prices") == ("run", "changed")


def test_what_has_no_digest_runs_unless_a_running_cell_needs_what_it_gave_in_this_kernel():
    facts = Facts()
    facts.give("raw")
    facts.step("clean").code = CodeVersion("code", unverifiable=(Unverifiable("clean -> CONN", "no digest"),))
    materializations = facts.keep("clean", unverifiable=("clean -> CONN: no digest",))
    assert facts.outcome() == facts.outcome(kind="cell pull") == ("run", "unverifiable")
    facts.decision_facts.is_last_in_kernel = lambda key, item: item is materializations[0]
    assert facts.outcome(kind="cell pull") == ("reuse", "")
    assert facts.outcome() == facts.outcome(kind="cell") == facts.outcome(kind="named") == ("run", "unverifiable")


def test_the_kind_of_request_decides_whether_a_changed_variable_counts():
    facts = Facts()
    facts.give("raw")
    facts.keep("clean", reads=(Read("name", "LIMIT", "old"),))
    facts.decision_facts.kernel_read_holds = lambda read, key, item, kind: kind == "pull"
    assert facts.outcome() == ("reuse", "")
    assert facts.outcome(kind="cell") == facts.outcome(kind="named") == ("run", "changed")


def test_an_execution_that_this_kernel_has_comes_before_newer_ones():
    facts = Facts()
    facts.give("raw")
    here, newer = facts.keep("clean"), facts.keep("clean")
    assert facts.decide().materializations == newer
    facts.decision_facts.is_last_in_kernel = lambda key, item: item is here[0]
    assert facts.decide().materializations == here


def test_of_executions_that_changed_external_state_only_the_newest_can_be_reused():
    facts = Facts()
    facts.give("raw")
    older = facts.keep("clean", data_version="", value=None)
    assert facts.decide().materializations == older
    facts.give("raw", "2")
    facts.keep("clean", data_version="", value=None)
    facts.give("raw", "1")
    assert facts.outcome() == ("run", "changed")
    memo = facts.decide().memo_key
    assert (
        refusal(facts.step("clean"), memo, facts.decision_facts)
        == "another version of the step has run since, and may have changed external state"
    )


def test_a_value_that_another_user_signed_comes_last():
    facts = Facts()
    facts.give("raw")
    own, foreign = facts.keep("clean"), facts.keep("clean")
    facts.decision_facts.snapshot.foreign = {foreign[0].id: "abc"}
    assert facts.decide().materializations == own
    facts.decision_facts.snapshot.foreign[own[0].id] = "abc"
    assert facts.outcome() == ("run", "lost")


def test_an_acceptance_that_was_revoked_is_not_reused():
    facts = Facts()
    facts.give("raw")
    before = facts.keep("clean")
    accepted = facts.keep("clean")
    facts.keep("clean", metadata={REVOKED: accepted[0].run_id})
    assert facts.decide().materializations == before
    assert (
        refusal(facts.step("clean"), before[0].memo_key, facts.decision_facts) == "the acceptance of the stored value was revoked"
    )


def test_a_failed_attempt_counts_while_the_memo_key_is_the_same():
    facts = Facts()
    facts.give("raw")
    memo = facts.decide().memo_key
    facts.decision_facts.snapshot.failures["clean"] = FailedAttempt("r", memo, None, 0.0, 1.0)
    assert facts.outcome() == ("run", "failed")
    facts.give("raw", "2")
    assert facts.outcome() == ("run", "changed")


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"reads": (FILE,)}, "/data.csv is gone"),
        ({"unverifiable": ("clean -> CONN",)}, "clean -> CONN had no digest when the value was computed"),
        ({"key": "other"}, "clean is no longer stored"),
        ({}, ""),
    ],
)
def test_the_reason_of_a_refusal_is_the_objection_that_decided(attributes, text):
    facts = Facts()
    facts.give("raw")
    materializations = tuple(replace(item, **attributes) for item in facts.keep("clean"))
    memo = materializations[0].memo_key
    facts.decision_facts.snapshot.by_memo_key[memo] = [materializations]
    assert refusal(facts.step("clean"), memo, facts.decision_facts) == text
    assert facts.outcome() == (("run", "changed") if text else ("reuse", ""))


def test_an_input_that_is_not_stored_and_was_computed_again_is_a_reason_to_run():
    facts = Facts()
    facts.decision_facts.values["raw"] = materialization("raw", value=None, data_version="")
    facts.keep("clean")
    facts.decision_facts.values["raw"] = materialization("raw", value=None, data_version="")
    found = facts.decide()
    why = reason_to_run(facts.step("clean"), found.memo_key, found.inputs, facts.decision_facts)
    assert (found.action, why) == ("run", "the value of raw is not stored and was computed again")


def test_an_execution_with_other_inputs_may_be_reused_again():
    facts = Facts()
    facts.give("raw")
    materializations = facts.keep("clean")
    assert may_be_reused(facts.step("clean"), [materializations], facts.decision_facts)
    assert not may_be_reused(facts.step("clean"), [(replace(materializations[0], reads=(FILE,)),)], facts.decision_facts)
    assert not may_be_reused(facts.step("clean"), [(replace(materializations[0], code_version="other"),)], facts.decision_facts)


def test_the_inputs_of_a_memo_key():
    @asset(deps=["raw"])
    def ordered(raw2):
        return raw2

    facts = Facts(ordered, targets=("ordered",))
    step = facts.step("ordered")
    assert facts.decision_facts.inputs(step) is None
    facts.give("raw2")
    first = facts.decision_facts.key(step, facts.decision_facts.inputs(step))
    facts.give("raw")
    inputs = facts.decision_facts.inputs(step)
    assert [(each.name, each.key, each.kind) for each in inputs] == [
        ("raw2", "raw2", "value"), ("", "raw", "order"),
    ]  # fmt: skip
    assert inputs[0].version == "1"
    assert inputs[1].version == facts.decision_facts.values["raw"].id
    second = facts.decision_facts.key(step, inputs)
    facts.give("raw")
    third = facts.decision_facts.key(step, facts.decision_facts.inputs(step))
    assert len({first, second, third}) == 3
    step.code = CodeVersion("other")
    assert facts.decision_facts.key(step, facts.decision_facts.inputs(step)) != third
    step.code = None
    assert facts.decision_facts.key(step, inputs) == ""


def test_the_current_materialization_of_a_notebook_comes_before_those_of_others():
    mine, others = materialization("raw"), materialization("raw")
    rows = [Current("b.ipynb", "raw", others), Current("a.ipynb", "raw", mine)]
    assert choose_current(rows, "a.ipynb") is mine
    assert choose_current(rows, "c.ipynb") is others
    assert choose_current([], "a.ipynb") is None
