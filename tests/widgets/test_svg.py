"""The drawing is well-formed whatever things are called, says states in words, and needs no style sheet."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictured import HOSTILE, everything, hostile

from stepwell.kernel_runtime.records.runs import Lineage, LineageNode
from stepwell.widgets.layout import layered
from stepwell.widgets.picture import clean, lineage_svg, shorten

SVG = "{http://www.w3.org/2000/svg}"


def cards(text):
    return {g.get("data-key"): g for g in ET.fromstring(text).iter(f"{SVG}g") if g.get("class") == "sw-node"}


def words(element):
    return " ".join("".join(text.itertext()) for text in element.iter(f"{SVG}text"))


@pytest.mark.parametrize("live", [False, True])
def test_hostile_names_stay_text(live):
    drawn = lineage_svg(hostile(), live=live)
    root = ET.fromstring(drawn)
    assert not list(root.iter(f"{SVG}script"))
    assert "<script" not in drawn
    assert len(cards(drawn)) == len(HOSTILE)


@given(st.text())
def test_any_text_can_stand_in_an_attribute_and_in_an_element(text):
    element = ET.fromstring(f'<a b="{clean(text)}">{clean(text)}</a>')
    assert element.get("b") is not None


def test_every_state_is_said_in_words_with_what_matters():
    said = {key: words(card) for key, card in cards(lineage_svg(everything())).items()}
    assert "● Fresh · 20" in said["raw/flights"]
    assert "1.9 s" in said["raw/flights"]
    assert "336,776 × 19 · 41.0 MB" in said["raw/flights"]
    assert "◌ Stale · drop_cancelled() changed" in said["clean"]
    assert "◔ May change · clean is stale" in said["daily"]
    assert "○ Missing · never materialized" in said["split"]
    assert "✕ Failed · KeyError: 'carrier'" in said["report.transform"]
    assert "◍ Unverifiable · a lock in cfg" in said["model"]
    assert "Source" in said["raw/planes"]
    assert [said[key].split()[0] for key in ("clean", "daily", "split", "report.fetch", "raw/planes", "mail_worst")] == [
        "PY",
        "SQL",
        "×2",
        "OP",
        "SRC",
        "JOB",
    ]


def test_a_graph_backed_asset_has_a_box_with_counts():
    groups = [g for g in ET.fromstring(lineage_svg(everything())).iter(f"{SVG}g") if g.get("class") == "sw-group"]
    assert [words(group).split(maxsplit=1) for group in groups] == [["reportgraph-backed", "asset · 2 steps · 1 failed"]]


def test_order_edges_are_dashed_and_value_edges_are_not():
    edges = [g for g in ET.fromstring(lineage_svg(everything())).iter(f"{SVG}g") if g.get("class") == "sw-edge"]
    dashed = {(g.get("data-source"), g.get("data-target")) for g in edges if g.find(f"{SVG}path").get("stroke-dasharray")}
    assert dashed == {("raw/planes", "daily")}
    assert len(edges) == len(everything().edges)


def test_states_differ_by_border_or_word_and_not_by_colour_alone():
    static = cards(lineage_svg(everything()))
    border = {
        key: next(r for r in card.iter(f"{SVG}rect") if r.get("class") == "sw-border").get("stroke-dasharray")
        for key, card in static.items()
    }
    assert border["clean"]
    assert border["raw/flights"] is None


def test_the_static_picture_carries_its_colours_and_asks_for_nothing():
    drawn = lineage_svg(everything())
    assert "prefers-color-scheme:dark" in drawn
    assert "var(" not in drawn
    assert not re.search(r"href|url\(|@import|<image|<foreignObject|on\w+=", drawn)
    assert all(
        element.get("fill")
        for element in ET.fromstring(drawn).iter()
        if element.tag in {f"{SVG}rect", f"{SVG}text"} and "sw-group" not in element.get("class", "sw-group")
    )


def test_the_live_picture_depends_on_the_structure_alone():
    lineage = everything()
    ran = Lineage(
        tuple(
            replace(node, state="fresh" if node.state else None, summary="x", created=1.0, seconds=2.0, reason="", error="")
            for node in lineage.nodes
        ),
        lineage.edges,
    )
    geometry = layered(lineage)
    assert lineage_svg(lineage, geometry=geometry, live=True) == lineage_svg(ran, geometry=geometry, live=True)


def test_live_cards_can_be_reached_and_pressed():
    for key, card in cards(lineage_svg(everything(), live=True)).items():
        assert card.get("role") == "button", key
        assert card.get("tabindex") == "-1"


def test_long_names_keep_their_beginning_and_end_and_fit():
    assert shorten("short", 21) == "short"
    cut = shorten("warehouse/raw/flights_of_2013", 21)
    assert cut == "warehouse/raw…of_2013"[:21]
    assert len(cut) == 21
    assert len(shorten("日本語" * 20, 21)) <= 12
    long = Lineage((LineageNode("k" * 300, "k" * 300, "asset", "fresh"),), ())
    assert "k" * 300 in next(iter(cards(lineage_svg(long)).values())).find(f"{SVG}title").text


def test_an_empty_lineage_is_a_picture_too():
    ET.fromstring(lineage_svg(Lineage((), ())))
