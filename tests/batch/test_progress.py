"""Progress: one line that is written again on a terminal, one line a cell elsewhere."""

from __future__ import annotations

import io
import os
import pty

import pytest

from stepwell.batch.progress import Progress
from stepwell.batch.report import wants_colour


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


def test_a_terminal_has_one_updating_line(terminal, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    stream, screen = terminal
    told(stream)
    written = screen.read(10_000).decode()

    assert "\n" not in written
    assert "cell 1/2  import pandas  0.0 s" in written
    assert written.endswith("\r\x1b[2K")


@pytest.mark.parametrize("variable", [("CI", "true"), ("TERM", "dumb")])
def test_a_terminal_that_is_recorded_has_lines(terminal, monkeypatch, variable):
    monkeypatch.setenv(*variable)
    stream, screen = terminal
    told(stream)

    assert "\x1b" not in screen.read(10_000).decode()


def test_elsewhere_every_cell_has_a_line():
    stream = io.StringIO()
    told(stream)

    first, second = stream.getvalue().splitlines()
    assert first == "cell 1/2  import pandas  0.0 s"
    assert second.startswith("cell 2/2  xxxx")
    assert second.endswith("…  0.0 s  failed")
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
