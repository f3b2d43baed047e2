"""The instance that a run will need is started while the run is planned: nothing may go wrong where that is cut short."""

import pytest


@pytest.mark.parametrize("pause", [0, 0.01, 0.03])
def test_a_process_may_end_while_the_instance_starts(python, pause):
    script = f"""
    import sys, time
    from stepwell.kernel_runtime.store.catalog.instance import warm_up
    warm_up()
    time.sleep({pause})
    print("ends")
    """
    process = python(script, wait=False)
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out, err) == (0, "ends\n", "")


def test_a_process_may_be_forked_while_the_instance_starts(python):
    out = python("""
    import os, sys
    from stepwell.kernel_runtime.store.catalog.instance import warm_up
    from stepwell.kernel_runtime.store.store import open_store
    warm_up()
    child = os.fork()
    store = open_store(f"store-{bool(child)}")
    assert store.keys() == []
    store.close()
    if child:
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status))
    """)
    assert out == "0\n"


def test_what_fails_when_the_instance_starts_is_told_by_who_needs_it(python):
    err = python(
        """
        import sys
        sys.modules["duckdb"] = None
        from stepwell.kernel_runtime.store.catalog.instance import warm_up
        from stepwell.kernel_runtime.store.store import open_store
        warm_up()
        open_store("store")
        """,
        fails=True,
    )
    assert err.count("Traceback") <= 2
    assert "duckdb" in err


def test_the_store_does_not_start_the_database_of_the_users_own_statements(python):
    # `duckdb.sql(...)` has a database of its own in the process; what a step leaves there counts.
    out = python("""
    import duckdb, stepwell
    started = []
    original = duckdb.default_connection
    duckdb.default_connection = lambda: started.append(1) or original()
    duckdb.connect("mine.duckdb").close()

    @stepwell.asset
    def a() -> int:
        return 1

    print(stepwell.materialize([a], store="store").value("a"), len(started))
    """)
    assert out == "1 0\n"
