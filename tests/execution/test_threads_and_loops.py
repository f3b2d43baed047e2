"""A session asked from an event loop and from many threads, while a run goes on."""

import asyncio

import pytest

import stepwell
from stepwell import asset
from stepwell.kernel_runtime.session import get_session

COUNT = 12


def definitions():
    def define(number):
        @asset(name=f"s{number}")
        async def body():
            await asyncio.sleep(0.002)
            return number

        return body

    return [define(number) for number in range(COUNT)]


@pytest.mark.parametrize("where", ["loop", "executor"])
def test_executor_threads_ask_while_a_run_goes_on(store_dir, where):
    store = stepwell.get_session().open(store_dir)
    stepwell.materialize([asset(name="base")(lambda: 1)], store=store)
    given = definitions()

    def ask(number):
        store.keys()
        get_session().states(given, definitions=given) if number % 3 == 0 else store.runs()
        return stepwell.load("base", store=store)

    async def main():
        loop = asyncio.get_running_loop()
        asked = [loop.run_in_executor(None, ask, number) for number in range(12)]
        if where == "loop":
            # Blocks the loop, as any run in a cell does; our own loop runs the bodies.
            result = stepwell.materialize(given, store=store)
        else:
            result = await loop.run_in_executor(None, lambda: stepwell.materialize(given, store=store))
        # Giving up waiting leaves the work in its thread, and the store usable.
        late = loop.run_in_executor(None, ask, 1)
        late.cancel()
        return result, await asyncio.gather(*asked)

    result, answers = asyncio.run(main())
    assert result.success
    assert [result.value(f"s{number}") for number in range(COUNT)] == list(range(COUNT))
    assert answers == [1] * 12
    assert {step.status for step in stepwell.materialize(given, store=store).steps} == {"reused"}
