"""Two processes that materialise the same and different assets in one store at once."""

import json

import stepwell
from stepwell.kernel_runtime.store import housekeeping

SCRIPT = """
import json, sys
import stepwell
from stepwell import asset

store, name, rounds, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])


def define(key, value):
    def body():
        return value
    return asset(name=key)(body)


def follow(key, upstream, value):
    def body(x):
        return [x, value]
    return asset(name=key, ins={"x": upstream})(body)


print("ready", flush=True)
sys.stdin.readline() if not sys.stdin.closed else None
runs = {}
for round_ in range(rounds):
    definitions = [define(f"shared{i}", round_ * 1000 + i) for i in range(count)]
    definitions += [follow(f"{name}{i}", f"shared{i}", round_) for i in range(count)]
    result = stepwell.materialize(definitions, store=store)
    assert result.success
    for i in range(count):
        assert result.value(f"{name}{i}") == [round_ * 1000 + i, round_]
    runs[result.run_id] = [[step.key, step.status] for step in result.steps]
print(json.dumps(runs))
"""


def test_nothing_is_lost_and_nothing_fails(python, store_dir):
    rounds, count = 6, 8
    processes = {
        name: python(SCRIPT, store_dir, name, rounds, count, wait=False, name=f"{name}.py") for name in ("left", "right")
    }
    runs = {}
    for process in processes.values():
        assert process.stdout.readline() == "ready\n"
    for name, process in processes.items():
        out, err = process.communicate(timeout=240)
        assert process.returncode == 0, err
        assert err == ""
        found = json.loads(out)
        assert len(found) == rounds
        runs.update(found)
        for steps in found.values():
            own = {status for key, status in steps if key.startswith(name)}
            assert own == {"executed"}
    store = stepwell.get_session().open(store_dir)
    assert {run.run_id for run in store.runs(limit=100)} == set(runs)
    assert {run.status for run in store.runs(limit=100)} == {"success"}
    made = 0
    for run_id, steps in runs.items():
        _, recorded = store.run(run_id)
        assert sorted([step.key, step.status] for step in recorded) == sorted(steps)
        made += sum(status == "executed" for _, status in steps)
    assert housekeeping.sizes(store)["materializations"] == made
    for name in processes:
        assert [stepwell.load(f"{name}{i}", store=store_dir) for i in range(count)] == [
            [(rounds - 1) * 1000 + i, rounds - 1] for i in range(count)
        ]
