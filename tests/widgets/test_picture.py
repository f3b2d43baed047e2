"""Where no widget can live the picture is an image, and text that can be read."""

import base64
import xml.etree.ElementTree as ET

from pictured import everything, hostile

from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode
from stepwell.widgets import lineage_text, static_bundle


def test_the_bundle_has_an_image_that_untrusted_notebooks_show_and_text():
    bundle = static_bundle(everything())
    assert set(bundle) == {"text/plain", "text/html"}
    html = ET.fromstring(bundle["text/html"].replace('"></div>', '"/></div>'))
    image = html.find("img")
    assert "10 steps" not in image.get("src")
    assert image.get("alt").startswith("Lineage: 8 steps · 1 failed · 1 missing · 1 unverifiable · 1 stale · 1 may change")
    kind, data = image.get("src").split(",")
    assert kind == "data:image/svg+xml;base64"
    assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")


def test_the_bundle_is_the_same_each_time_so_that_diffs_stay_quiet():
    assert static_bundle(everything()) == static_bundle(everything())
    assert "ago" not in lineage_text(everything())


def test_the_text_is_a_tree_with_states():
    lines = lineage_text(everything()).splitlines()
    found = {line.lstrip("│├└─ ").split("  ")[0]: line for line in lines[1:]}
    assert len(lines) == 11
    assert "● Fresh" in found["raw/flights"]
    assert "◌ Stale · drop_cancelled() changed" in found["clean"]
    assert lines.index(found["clean"]) == lines.index(found["raw/flights"]) + 1
    assert found["clean"].startswith("└─ ")
    assert "also from raw/weather, raw/planes" in found["daily"]
    assert "✕ Failed · KeyError: 'carrier'" in found["report.transform"]


def test_a_deep_chain_and_a_cycle_can_be_read():
    nodes = tuple(LineageNode(f"n{i}", f"n{i}", "asset", "missing") for i in range(3000))
    chain = Lineage(nodes, tuple(LineageEdge(f"n{i}", f"n{i + 1}") for i in range(2999)))
    assert len(lineage_text(chain).splitlines()) == 3001
    cycle = Lineage(nodes[:2], (LineageEdge("n0", "n1"), LineageEdge("n1", "n0")))
    assert len(lineage_text(cycle).splitlines()) == 3


def test_text_and_image_hold_hostile_names_on_their_own_lines():
    text = lineage_text(hostile())
    assert len(text.splitlines()) == len(hostile().nodes) + 1
    assert text.replace("\n", "").isprintable()
    text.encode()
    static_bundle(hostile())


def test_nothing_defined_is_said():
    assert lineage_text(Lineage((), ())) == "Lineage: nothing is defined yet"
