"""The widget's own files stay small, plain and safe."""

import re
from pathlib import Path

import stepwell.widgets
from stepwell.commands.lineage import SYMBOLS
from stepwell.widgets.picture import DARK, LIGHT, status_style

HERE = Path(stepwell.widgets.__file__).parent
ESM = (HERE / "lineage.js").read_text(encoding="utf-8")
CSS = (HERE / "lineage.css").read_text(encoding="utf-8")


def test_the_module_is_one_small_plain_file():
    assert len(ESM.encode()) < 15 * 1024
    assert not re.search(r"^\s*import\b|\bimport\(|\brequire\(|https?:", ESM, re.MULTILINE)


def test_text_never_goes_in_as_html():
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", ESM)


def test_every_status_has_colours_in_both_themes_and_a_symbol_of_its_own():
    assert set(LIGHT) == set(DARK) == set(SYMBOLS)
    assert len(set(SYMBOLS.values())) == len(SYMBOLS)
    for status in SYMBOLS:
        assert f'[data-status="{status}"]' in status_style()


def test_the_style_asks_for_nothing_and_touches_only_the_widget():
    assert not re.search(r"url\(|@import", CSS)
    rules = re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL)
    selectors = [part.strip() for part in re.findall(r"(?:^|[{}])\s*([^{}@]+)\{", rules)]
    assert [selector for selector in selectors if "sw-" not in selector and not re.match(r"to$|from$|\d", selector)] == []


def test_less_motion_is_respected():
    assert "prefers-reduced-motion: reduce" in CSS
