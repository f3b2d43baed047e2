"""A picture always appears, the same each time, with no card on another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from pictured import everything, hostile, lineages

from stepwell.kernel_runtime.errors import LayoutError
from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode
from stepwell.widgets.layout import MOST_CARDS, graphviz_json, laid_out, layered, layout, locate_graphviz, to_dot


@pytest.fixture(autouse=True)
def no_layout_kept():
    laid_out.cache_clear()


def overlap(a, b):
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def check(lineage, geometry):
    assert set(geometry.cards) == {node.key for node in lineage.nodes}
    cards = list(geometry.cards.items())
    parent = {node.key: node.parent for node in lineage.nodes}
    for place, (key, box) in enumerate(cards):
        assert box.x >= 0
        assert box.y >= 0
        assert box.right <= geometry.width
        assert box.bottom <= geometry.height
        assert not [other for other, there in cards[place + 1 :] if overlap(box, there)]
        for name, group in geometry.groups.items():
            if parent[key] == name:
                assert group.x < box.x
                assert group.y < box.y
                assert box.right < group.right
                assert box.bottom < group.bottom
            else:
                assert not overlap(box, group)
    for route in geometry.routes:
        start, end = geometry.cards[route.edge.source], geometry.cards[route.edge.target]
        assert start.right <= end.x
        assert route.points[0] == pytest.approx((start.right, start.middle), abs=2)
        assert route.points[-1] == pytest.approx((end.x, end.middle), abs=2)


def test_graphviz_places_every_card_without_overlap():
    geometry = layout(everything())
    assert not geometry.note
    assert len(geometry.routes) == len(everything().edges)
    assert set(geometry.groups) == {"report"}
    check(everything(), geometry)


OUT_AND_BACK = Lineage(
    (
        LineageNode("g.a", "g.a", "op", "fresh", parent="g"),
        LineageNode("b", "b", "asset", "fresh"),
        LineageNode("g.c", "g.c", "op", "fresh", parent="g"),
    ),
    (LineageEdge("g.a", "b"), LineageEdge("b", "g.c")),
)


@given(lineages())
@example(OUT_AND_BACK)
@settings(max_examples=25, deadline=None)
def test_any_lineage_is_laid_out_by_graphviz(lineage):
    geometry = layout(lineage)
    assert not geometry.note
    check(lineage, geometry)


@given(lineages())
@settings(max_examples=60, deadline=None)
def test_plain_layers_never_put_a_card_on_another(lineage):
    check(lineage, layered(lineage))


def test_the_same_lineage_gives_the_same_picture_in_another_process():
    code = "import sys; sys.path.insert(0, sys.argv[1]); from pictured import everything; from stepwell.widgets.layout import layout; print(layout(everything()))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", code, str(Path(__file__).parent)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {f"{layout(everything())}\n"}


def test_one_structure_is_laid_out_once_whatever_its_states():
    calls = []

    def engine(dot):
        calls.append(dot)
        return graphviz_json(dot)

    fresh = Lineage((LineageNode("a", "a", "asset", "fresh"), LineageNode("b", "b", "asset", "fresh")), (LineageEdge("a", "b"),))
    stale = Lineage((LineageNode("a", "a", "asset", "stale"), LineageNode("b", "b", "asset", "failed")), (LineageEdge("a", "b"),))
    assert layout(fresh, engine=engine) is layout(stale, engine=engine)
    assert len(calls) == 1
    layout(Lineage(fresh.nodes, ()), engine=engine)
    assert len(calls) == 2


def test_the_wheel_is_found_where_path_has_no_graphviz(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(locate_graphviz()).name.startswith("graphviz-pure")
    assert not layout(everything()).note


def test_a_dot_on_path_is_preferred(monkeypatch, tmp_path):
    stand_in = tmp_path / "dot"
    stand_in.symlink_to(locate_graphviz())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert locate_graphviz() == str(stand_in)
    check(everything(), layout(everything()))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo no memory >&2; exit 3", "no memory"),
        ("echo not json", "not valid JSON"),
        ("echo '{}'", "printed an invalid layout"),
    ],
)
def test_a_broken_graphviz_still_gives_a_picture_that_says_why(monkeypatch, tmp_path, script, words):
    broken = tmp_path / "dot"
    broken.write_text(f"#!/bin/sh\n{script}\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    geometry = layout(everything())
    assert words in geometry.note
    check(everything(), geometry)


def test_without_any_engine_plain_layers_are_drawn():
    def engine(_dot):
        raise LayoutError("Graphviz is not installed here", remedy="install one")

    geometry = layout(everything(), engine=engine)
    assert geometry.note == "Graphviz is not installed here install one"
    check(everything(), geometry)


def test_more_cards_than_graphviz_can_take_are_drawn_in_layers_at_once():
    nodes = tuple(LineageNode(f"n{i}", f"n{i}", "asset", "fresh") for i in range(MOST_CARDS + 1))
    edges = tuple(LineageEdge(f"n{i}", f"n{i + 1}") for i in range(MOST_CARDS))
    geometry = layout(Lineage(nodes, edges))
    assert "too many" in geometry.note
    assert len(geometry.cards) == len(nodes)


def test_names_never_reach_the_dot_language():
    assert "script" not in to_dot(hostile())
    assert not layout(hostile()).note


def test_a_cycle_and_unknown_ends_do_not_stop_the_picture():
    nodes = (LineageNode("a", "a", "asset", "missing"), LineageNode("b", "b", "asset", "missing"))
    edges = (LineageEdge("a", "b"), LineageEdge("b", "a"), LineageEdge("a", "a"), LineageEdge("gone", "a"))
    assert set(layout(Lineage(nodes, edges)).cards) == {"a", "b"}
    assert set(layered(Lineage(nodes, edges)).cards) == {"a", "b"}
