"""A machine in trouble is called by its name, and what was acknowledged is there when the trouble is over. These tests are root's."""

import os
import subprocess
import sys
import textwrap

import pytest

BEGIN = """
    import os, resource, subprocess, sys
    import numpy as np
    import stepwell
    from stepwell.kernel_runtime import errors
    store = sys.argv[1]

    def made(name, rows):
        namespace = {"np": np}
        exec(f"def {name}(): return np.arange({rows})", namespace)
        return stepwell.asset(namespace[name])

    def refused(call):
        try:
            call()
        except errors.StoreError as error:
            assert "damaged" not in str(error) and "rebuild" not in str(error), error
            return type(error)

    if len(sys.argv) == 2:
        stepwell.materialize([made("large", 5_000_000), made("small", 5)], store=store)
        stepwell.load("large", store=store)
"""
END = """
    assert stepwell.load("large", store=store)[-1] == 4_999_999
    assert list(stepwell.load("small", store=store)) == [0, 1, 2, 3, 4]
    stepwell.materialize([made("later", 100_000)], store=store)
    assert stepwell.load("later", store=store)[-1] == 99_999
"""
FILES = """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = max(int(each) for each in os.listdir("/proc/self/fd"))
    seen = set()
    stepwell.doctor(store=store)
    for more in range(12):
        resource.setrlimit(resource.RLIMIT_NOFILE, (last + more, most))
        seen.add(refused(lambda: stepwell.load("large", store=store)))
        seen.add(refused(lambda: stepwell.materialize([made(f"more_{more}", 100_000)], store=store)))
        seen.add(refused(lambda: list(stepwell.doctor(store=store))))
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    assert errors.TooManyFilesError in seen, seen
    assert seen <= {errors.TooManyFilesError, None}, seen
"""
MEMORY = """
    (pages,) = (int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmSize"))
    resource.setrlimit(resource.RLIMIT_AS, (pages + (16 << 20), resource.RLIM_INFINITY))
    found = refused(lambda: stepwell.load("large", store=store))
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert found is errors.StoreMemoryError, found
"""
DEVICE = """
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", f"{store}/tmp"], check=True)
    try:
        found = refused(lambda: stepwell.materialize([made("moved", 100_000)], store=store))
    finally:
        subprocess.run(["umount", "-l", f"{store}/tmp"], check=True)
    assert found is errors.OtherDeviceError, found
"""

QUOTA = """
    import ctypes, platform, struct

    def deny_large_writes():
        # As at the end of a quota: the kernel itself refuses, by a filter of this process, every write of 64 KiB or of
        # several parts, and new blocks.
        numbers = {"x86_64": (1, 18, 20, 285), "aarch64": (64, 68, 66, 47)}[platform.machine()]
        write, pwrite, writev, fallocate = numbers
        at = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
        load, equal, most, give = 0x20, 0x15, 0x35, 0x06
        quota, allow = at(give, 0, 0, 0x00050000 | 122), at(give, 0, 0, 0x7FFF0000)
        program = [
            at(load, 0, 0, 0),
            at(equal, 5, 0, fallocate), at(equal, 4, 0, writev), at(equal, 1, 0, write), at(equal, 0, 3, pwrite),
            at(load, 0, 0, 32), at(most, 0, 1, 65536), quota, allow,
        ]
        code = ctypes.create_string_buffer(b"".join(program))
        filter = struct.pack("HL", len(program), ctypes.addressof(code))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0, ctypes.get_errno()

    if len(sys.argv) > 2:
        deny_large_writes()
        print(refused(lambda: stepwell.materialize([made("over", 200_000)], store=store)).__name__)
        assert list(stepwell.load("small", store=store)) == [0, 1, 2, 3, 4]
        sys.exit()
    program = open(f"/proc/{os.getpid()}/cmdline", "rb").read().split(bytes(1))[2]
    done = subprocess.run([sys.executable, "-c", program, store, "at the end"], capture_output=True, text=True)
    assert done.stdout == "StoreQuotaError\\n", done
"""

DEAD = """
    import ctypes, platform, struct, threading
    from stepwell.kernel_runtime.session import get_session
    from stepwell.kernel_runtime.store import housekeeping

    def deny_flushes(*_):
        # In this thread only: the disk takes a commit neither in full nor back, after which DuckDB refuses every statement.
        denied = {"x86_64": (74, 75, 77), "aarch64": (82, 83, 46)}[platform.machine()]
        at = lambda code, yes, no, value: struct.pack("HBBI", code, yes, no, value)
        tests = [at(0x15, 3 - each, 0, number) for each, number in enumerate(denied)]
        program = [at(0x20, 0, 0, 0), *tests, at(0x06, 0, 0, 0x7FFF0000), at(0x06, 0, 0, 0x00050000 | NUMBER)]
        code = ctypes.create_string_buffer(b"".join(program))
        filter = struct.pack("HL", len(program), ctypes.addressof(code))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.prctl(38, 1, 0, 0, 0) == 0
        assert libc.prctl(22, 2, ctypes.c_char_p(filter), 0, 0) == 0, ctypes.get_errno()

    other = f"{store}-other"
    stepwell.materialize([made("small", 5)], store=other)
    opened, used = get_session().open(store), get_session().open(other)
    opened.catalog.ask(deny_flushes)
    # The other store's connection is in use while the instance is given up.
    query = "SELECT count(*) FROM range(30000) a, range(30000) b"
    busy = threading.Thread(target=refused, args=(lambda: used.catalog.ask(lambda connection, _: connection.execute(query).fetchone()),))
    busy.start()
    seen = [refused(lambda: stepwell.materialize([made("first", 5)], store=store))]
    busy.join()
    for more in range(3):
        # The other store is attached to the same instance, and goes on.
        assert list(stepwell.load("small", store=other)) == [0, 1, 2, 3, 4]
        seen.append(refused(lambda: stepwell.materialize([made(f"more_{more}", 5)], store=store)))
        assert list(stepwell.load("small", store=other)) == [0, 1, 2, 3, 4]
    seen.append(refused(lambda: housekeeping.collect(get_session().open(store), grace=0, compact=True)))
    assert set(seen) <= {errors.CLASS, None}, seen
    assert errors.CLASS in seen, seen
    # Its thread ends, and the trouble with it.
    opened.close()
    assert list(stepwell.load("small", store=other)) == [0, 1, 2, 3, 4]
"""


@pytest.mark.parametrize(
    "trouble",
    [
        FILES,
        MEMORY,
        DEVICE,
        QUOTA,
        DEAD.replace("NUMBER", "28").replace("CLASS", "StoreFullError"),
        DEAD.replace("NUMBER", "5").replace("CLASS", "StoreDiskError"),
    ],
    ids=["open files", "memory", "another device", "quota", "no room to flush", "no flush"],
)
def test_a_machine_in_trouble_is_called_by_its_name(tmp_path, trouble):
    program = "".join(textwrap.dedent(each) for each in (BEGIN, trouble, END))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "store")],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    assert "connection is busy" not in done.stderr


LINKED = """
    import stepwell
    from IPython.core.interactiveshell import InteractiveShell
    from stepwell.errors import UntrustedStoreError
    from stepwell.batch.command_line import main

    @stepwell.asset
    def value():
        return 1

    # In a plain process, the default is a temporary store.
    InteractiveShell.instance()
    try:
        stepwell.materialize([value])
        stepwell.load("value")
        print("used")
    except UntrustedStoreError as error:
        assert "only to a store that you name" in str(error), error
        print("refused")
    print(main(["status"]) == 5, main(["doctor"]) == 5, main(["gc"]) == 5)
"""


@pytest.mark.parametrize("named", ["nobody", "the environment", "an argument"])
def test_a_store_that_is_a_link_is_followed_only_where_this_path_was_named(tmp_path, named):
    project, elsewhere = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    elsewhere.mkdir()
    (project / "pyproject.toml").write_text("")
    (project / ".stepwell").symlink_to(elsewhere)
    program = textwrap.dedent(LINKED)
    environment = {key: value for key, value in os.environ.items() if key != "STEPWELL_STORE"}
    if named == "the environment":
        environment["STEPWELL_STORE"] = str(project / ".stepwell")
    if named == "an argument":
        program = program.replace("[value]", "[value], store='.stepwell'").replace('"value"', '"value", store=".stepwell"')
        program = program.replace('"]', '", "--store", ".stepwell"]')
    done = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=project,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    first, last = ("refused", "True True True") if named == "nobody" else ("used", "False False False")
    assert (done.stdout.splitlines()[0], done.stdout.splitlines()[-1]) == (first, last), done
    assert bool(list(elsewhere.iterdir())) == (named != "nobody")
