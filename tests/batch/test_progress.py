"""Progress: one line that is written again on a terminal, one line a cell elsewhere."""

from __future__ import annotations

import io
import os
import pty
import re
from contextlib import suppress

import pytest

from stepwell.batch.run import wants_colour
from stepwell.batch.terminal import Progress


def told(stream):
    progress = Progress(stream, 2)
    progress.begin(1, "\nimport pandas\nmore")
    progress.tick()
    progress.end()
    progress.begin(2, "x" * 100)
    progress.end("failed")
    progress.close()


@pytest.fixture
def terminal():
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream, os.fdopen(master, "rb", buffering=0) as screen:
        yield stream, screen


def seen(stream, screen):
    """Everything that was written to a terminal: it comes in pieces, and ends with an error when the other side is closed."""
    stream.close()
    pieces = []
    with suppress(OSError):
        while piece := screen.read(10_000):
            pieces.append(piece)
    return b"".join(pieces).decode()


def test_a_terminal_has_one_updating_line(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, screen = terminal
    told(stream)
    written = seen(stream, screen)

    assert "\n" not in written
    assert re.search(r"cell 1/2  import pandas  \d\.\d s", written)
    assert written.endswith("\r\x1b[2K")


@pytest.mark.parametrize("variable", [("CI", "true"), ("TERM", "dumb")])
def test_a_terminal_that_is_recorded_has_lines(terminal, monkeypatch, variable):
    monkeypatch.setenv(*variable)
    stream, screen = terminal
    told(stream)

    written = seen(stream, screen)
    assert "\x1b" not in written
    assert written.count("\n") == 2


def test_elsewhere_every_cell_has_a_line():
    stream = io.StringIO()
    told(stream)

    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(r"cell 1/2  import pandas  \d\.\d s", first)
    assert second.startswith("cell 2/2  xxxx")
    assert re.search(r"…  \d\.\d s  failed$", second)
    assert len(second) < 80
    assert os.linesep not in second


@pytest.mark.parametrize(
    ("variable", "expected"), [(("TERM", "xterm"), True), (("NO_COLOR", "1"), False), (("CI", "true"), False)]
)
def test_colours_are_for_terminals_that_want_them(terminal, monkeypatch, variable, expected):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(*variable)

    assert wants_colour(terminal[0]) is expected
    assert not wants_colour(io.StringIO())


def test_what_a_cell_waits_for_stands_beside_it_until_it_ends(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, screen = terminal
    plain = io.StringIO()
    for each in (stream, plain):
        progress = Progress(each, 1)
        progress.begin(1, "clean")
        progress.note("clean: waiting for b.ipynb (pid 1)")
        progress.tick()
        progress.end()
        progress.close()

    assert re.fullmatch(r"cell 1/1  clean  clean: waiting for b.ipynb \(pid 1\)\ncell 1/1  clean  \d\.\d s\n", plain.getvalue())
    begun, noted, ticked, ended, gone = seen(stream, screen).split("\r\x1b[2K")[1:]
    assert "waiting" not in begun + ended + gone
    for line in (noted, ticked):
        assert re.fullmatch(r"cell 1/1  clean  \d\.\d s  clean: waiting for b.ipynb \(pid 1\)", line)
