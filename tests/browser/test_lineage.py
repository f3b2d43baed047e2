"""The lineage in JupyterLab: click a step, it runs in the kernel, and its card says so."""

import re
import time

import pytest

LOAD = "%load_ext stepwell"
RAW = """%%asset raw
import time
time.sleep(0.7)
tally('raw')
raw = [3, 1, 2]"""
CLEAN = """%%asset clean
import time
time.sleep(0.7)
tally('clean')
clean = sorted(raw)"""
FETCH = """%%op fetch(data) -> found
import time
time.sleep(0.7)
tally('fetch')
found = [n * 2 for n in data]"""
TRANSFORM = """%%op transform(data) -> total
import time
time.sleep(0.7)
tally('transform')
total = sum(data)"""
REPORT = """%%graph_asset report -r
transform(fetch(clean))"""
TALLY = """import os
def tally(name):
    os.system(f'echo {name} >> ran.txt')"""
CELLS = [
    LOAD,
    TALLY,
    RAW,
    CLEAN,
    FETCH,
    TRANSFORM,
    REPORT,
    "%lineage",
    "%materialize report",
    "import time; time.sleep(4)",
]
LINEAGE, MATERIALIZE, BUSY = 7, 8, 9


def expect(locator):
    # Imported late, so that these tests can be collected and left out where Playwright is not installed.
    from playwright.sync_api import expect

    return expect(locator)


def shown(lab, open_one, folder):
    """Open a notebook, define its assets, and show their lineage."""
    opened = open_one(lab.write(f"{folder}/lineage.ipynb", CELLS))
    tally = lab.root / folder / "ran.txt"
    opened.ran = lambda: tally.read_text().split() if tally.exists() else []
    for index in range(LINEAGE + 1):
        opened.run(index)
    expect(opened.card("raw")).to_be_visible()
    return opened


@pytest.fixture
def notebook(lab, open_notebook, request):
    return shown(lab, open_notebook, re.sub(r"\W", "_", request.node.name))


@pytest.fixture(scope="module")
def shared(lab, open_shared_notebook):
    return shown(lab, open_shared_notebook, "shared")


def test_clicking_a_step_and_rerunning_it_runs_it_in_the_kernel(notebook):
    page = notebook.page
    notebook.expect_status("clean", "fresh")
    notebook.expect_status("report.transform", "missing")
    notebook.shot("lineage-live")
    before = notebook.ran()
    notebook.card("clean").click()
    expect(notebook.card("clean")).to_have_class(re.compile("sw-selected"))
    expect(page.locator(".sw-title")).to_have_text("clean")
    expect(page.locator(".sw-code pre")).to_contain_text("sorted(raw)")
    page.get_by_role("button", name="Re-run this step").click()
    notebook.expect_status("clean", "running")
    notebook.shot("lineage-running")
    notebook.expect_status("clean", "fresh")
    assert notebook.ran() == [*before, "clean"]
    assert notebook.value("[s.key for s in __import__('stepwell').last_run().steps if s.status == 'executed']") == ["clean"]


def test_materialize_from_another_cell_is_followed_live(notebook):
    for key in ("report.fetch", "report.transform"):
        notebook.expect_status(key, "missing")
    notebook.start(MATERIALIZE)
    notebook.expect_status("report.transform", "queued")
    notebook.expect_status("report.fetch", "running")
    notebook.expect_status("report.transform", "running")
    notebook.expect_status("report.transform", "fresh")
    notebook.finish(MATERIALIZE)
    assert notebook.ran()[-2:] == ["fetch", "transform"]
    expect(notebook.page.locator(".sw-group-text")).to_have_text("graph-backed asset · 2 steps")


def test_materialize_stale_brings_everything_up_to_date(notebook):
    button = notebook.page.get_by_role("button", name=re.compile(r"Materialize stale \(1\)"))
    button.click()
    notebook.expect_status("report.transform", "running")
    notebook.expect_status("report.transform", "fresh")
    expect(notebook.page.get_by_role("button", name="Materialize stale (0)")).to_be_disabled()
    assert notebook.value("__import__('stepwell').load('report')") == 12


def test_a_request_waits_for_a_running_cell_and_can_be_cancelled_meanwhile(notebook):
    page = notebook.page
    before = notebook.ran()
    notebook.card("clean").click()
    notebook.start(BUSY)
    page.get_by_role("button", name="Re-run this step").click()
    notebook.expect_status("clean", "queued")
    notebook.shot("lineage-queued")
    page.get_by_role("button", name="Cancel run").click()
    notebook.expect_status("clean", "fresh")
    assert notebook.is_running(BUSY)
    page.get_by_role("button", name="Re-run this step").click()
    notebook.expect_status("clean", "queued")
    notebook.finish(BUSY)
    notebook.expect_status("clean", "running")
    notebook.expect_status("clean", "fresh")
    assert notebook.ran() == [*before, "clean"]


LONG = """%%asset long -r
import socket, time
open('began.txt', 'w').close()
try:
    WAIT
finally:
    open('ended.txt', 'w').write(str(time.time()))
long = clean"""


def test_cancel_ends_the_running_step_at_once_whoever_runs_it(notebook, lab):
    page, folder = notebook.page, lab.root / notebook.name.split("/")[0]
    cancel = page.get_by_role("button", name="Cancel run")
    for wait, by_cell in (("time.sleep(600)", True), ("ends = socket.socketpair(); ends[0].recv(1)", False)):
        notebook.edit(BUSY, LONG.replace("WAIT", wait))
        notebook.run(BUSY)
        expect(notebook.card("long")).to_be_visible()
        (folder / "began.txt").unlink(missing_ok=True)
        if by_cell:
            notebook.edit(MATERIALIZE, "%materialize long")
            notebook.start(MATERIALIZE)
        else:
            notebook.card("long").click()
            page.locator(".sw-materialize").click()
        notebook.until((folder / "began.txt").exists)
        notebook.expect_status("long", "running")
        clicked = time.time()
        cancel.click()
        expect(cancel).to_be_disabled()
        if by_cell:
            outputs = notebook.finish(MATERIALIZE)
            assert [output["ename"] for output in outputs if output["output_type"] == "error"] == ["KeyboardInterrupt"]
        else:
            expect(page.locator(".sw-problem strong")).to_have_text("Cancelled")
            page.get_by_role("button", name="Dismiss").scroll_into_view_if_needed()
            notebook.shot("lineage-cancelled")
        print(f"{float((folder / 'ended.txt').read_text()) - clicked:.2f} s from the click to the end of {wait}")
        assert notebook.value("{s.key: s.status for s in __import__('stepwell').last_run().steps}") == {
            "raw": "reused",
            "clean": "reused",
            "long": "cancelled",
        }
        notebook.expect_status("long", "missing")
    # The kernel is the same one, and what it runs next is left alone.
    notebook.edit(BUSY, "clean")
    assert notebook.run(BUSY)[-1]["data"]["text/plain"] == "[1, 2, 3]"


def test_a_failure_is_shown_in_the_panel_and_on_the_card(notebook, lab):
    page = notebook.page
    page.evaluate(
        "() => { window.jupyterapp.shell.currentWidget.content.widgets[5].model.sharedModel.setSource("
        "\"%%op transform(data) -> total\\ntotal = {}['carrier']\"); }"
    )
    notebook.run(5)
    notebook.run(6)
    notebook.card("report.transform").click()
    page.get_by_role("button", name="Materialize report").click()
    notebook.expect_status("report.transform", "failed")
    expect(page.locator(".sw-problem")).to_contain_text("KeyError: 'carrier'")
    expect(notebook.card("report.transform")).to_have_attribute("aria-label", re.compile("Failed.*KeyError: 'carrier'"))
    notebook.shot("lineage-failed")
    page.get_by_role("button", name="Dismiss").click()
    expect(page.locator(".sw-problem")).to_be_hidden()
    expect(page.locator(".sw-error pre")).to_contain_text("carrier")
    notebook.expect_status("report.fetch", "fresh")


def test_an_edit_gives_a_new_picture_in_place(notebook):
    page = notebook.page
    page.evaluate(
        "() => { window.jupyterapp.shell.currentWidget.content.widgets[8].model.sharedModel.setSource('%%asset best -r\\nmax(clean)'); }"
    )
    notebook.run(MATERIALIZE)
    expect(notebook.card("best")).to_be_visible()
    notebook.expect_status("best", "missing")
    expect(page.locator('.sw-live .sw-edge[data-source="clean"][data-target="best"]')).to_have_count(1)


def test_the_keyboard_reaches_selects_and_finds(shared):
    page = shared.page
    expect(page.locator('.sw-live g.sw-node[tabindex="0"]')).to_have_count(1)
    shared.card("raw").focus()
    page.keyboard.press("ArrowRight")
    expect(shared.card("clean")).to_be_focused()
    expect(shared.card("clean")).to_have_attribute("tabindex", "0")
    page.keyboard.press("Enter")
    expect(page.locator(".sw-title")).to_have_text("clean")
    expect(shared.card("clean")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name=re.compile("^clean, Fresh"))).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator(".sw-hint")).to_be_visible()
    page.get_by_label("Find a step").fill("trans")
    expect(shared.card("raw")).to_have_class(re.compile("sw-dim"))
    page.keyboard.press("Enter")
    expect(page.locator(".sw-title")).to_have_text("report.transform")
    page.get_by_label("Find a step").fill("")
    expect(shared.card("raw")).not_to_have_class(re.compile("sw-dim"))
    shared.card("report.transform").focus()
    page.keyboard.press("Escape")


def test_zoom_pan_and_fit(shared):
    page, card = shared.page, shared.card("raw")
    canvas = page.locator(".sw-live .sw-canvas")
    whole = card.bounding_box()["width"]
    for _ in range(3):
        page.get_by_role("button", name="+", exact=True).click()
    assert card.bounding_box()["width"] > 1.9 * whole
    canvas.scroll_into_view_if_needed()
    box, before = canvas.bounding_box(), card.bounding_box()
    page.mouse.move(box["x"] + 205, box["y"] + box["height"] - 45)
    page.mouse.down()
    page.mouse.move(box["x"] + 145, box["y"] + box["height"] - 65, steps=4)
    page.mouse.up()
    after = card.bounding_box()
    assert (after["x"] - before["x"], after["y"] - before["y"]) == (-60, -20)
    expect(page.locator(".sw-panel")).to_be_hidden()
    page.get_by_role("button", name="Fit").click()
    assert card.bounding_box()["width"] == whole


def test_text_can_be_read_in_both_themes(shared):
    for theme in ("JupyterLab Dark", "JupyterLab Light"):
        shared.theme(theme)
        shared.page.locator(".sw-live").scroll_into_view_if_needed()
        shared.shot(f"lineage-{theme.split()[1].lower()}")
        poor = shared.page.evaluate(
            """() => {
                 const rgb = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
                 const light = (text) => rgb(text).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
                   .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
                 const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
                 const found = [];
                 for (const g of document.querySelectorAll(".sw-live g.sw-node")) {
                   const fill = (name) => getComputedStyle(g.querySelector(".sw-" + name)).fill;
                   for (const [text, ground] of [["name", "card"], ["summary", "card"], ["foot-text", "foot"]]) {
                     const r = ratio(fill(text), fill(ground));
                     if (!(r >= 4.5)) found.push([g.dataset.key, text, r]);
                   }
                 }
                 return found; }"""
        )
        assert poor == [], theme
