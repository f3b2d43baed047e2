"""The picture can be read at the size at which it is shown: live, in a narrow window, and in a reopened notebook."""

import pytest

CELLS = [
    "%load_ext stepwell",
    """from stepwell import asset
def grow(count, fan):
    for i in range(count):
        takes = ", ".join(f"table_{j}" for j in sorted({(i - 1) // fan, i * 7919 % i})) if i else ""
        exec(f"@asset\\ndef table_{i}({takes}): return {i}", globals())
    @asset(group_name="WWWWWW", description="W" * 300)
    def a_name_that_is_much_longer_than_a_card_is_wide(table_0): raise ValueError("MW@" * 60)""",
    "grow(COUNT, 3)",
    "%materialize a_name_that_is_much_longer_than_a_card_is_wide",
    "%lineage",
]
GROWN, FAILING, LINEAGE = 2, 3, 4
THEMES = ("JupyterLab Light", "JupyterLab Dark")

SMALLEST = """() => {
  const seen = [...document.querySelectorAll(".sw-live *")].filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && e.getClientRects().length && e.tagName !== "title");
  return Math.min(...seen.map((e) => parseFloat(getComputedStyle(e).fontSize) * (e.getScreenCTM?.().a ?? 1))); }"""
OUTSIDE = """() => [...document.querySelectorAll(".sw-live g.sw-node")].filter((g) => {
    const card = g.querySelector(".sw-card").getBoundingClientRect();
    return [...g.querySelectorAll("text")].map((t) => t.getBoundingClientRect()).some((t) => t.width && (t.left < card.left || t.right > card.right || t.top < card.top || t.bottom > card.bottom));
  }).map((g) => g.dataset.key)"""


def expect(locator):
    # Imported late, so that these tests can be collected and left out where Playwright is not installed.
    from playwright.sync_api import expect

    return expect(locator)


def grown(lab, open_one, count):
    opened = open_one(lab.write(f"readable{count}/lineage.ipynb", [cell.replace("COUNT", str(count)) for cell in CELLS]))
    for index in range(LINEAGE + 1):
        if index == FAILING:
            opened.start(index)
            opened.finish(index)
        else:
            opened.run(index)
    expect(opened.card("table_0")).to_be_visible()
    opened.page.locator(".sw-live").scroll_into_view_if_needed()
    return opened


@pytest.mark.parametrize("count", [10, 60, 300])
def test_text_is_never_smaller_than_11_px_and_what_does_not_fit_scrolls(lab, open_notebook, count):
    notebook = grown(lab, open_notebook, count)
    page = notebook.page
    canvas, fit = page.locator(".sw-live .sw-canvas"), page.get_by_role("button", name="Fit")
    for width, theme in ((1500, THEMES[0]), (620, THEMES[1])):
        page.set_viewport_size({"width": width, "height": 900})
        notebook.theme(theme)
        canvas.scroll_into_view_if_needed()
        notebook.shot(f"readable-{count}-{width}")
        assert page.evaluate(SMALLEST) >= 11
        assert page.evaluate(OUTSIDE) == []
        assert canvas.bounding_box()["width"] <= width
        # The first card is in sight, and every other one can be scrolled to.
        expect(notebook.card("table_0")).to_be_in_viewport()
        last = notebook.card(f"table_{count - 1}")
        last.scroll_into_view_if_needed()
        expect(last.locator(".sw-foot-text")).to_be_in_viewport()
        # All of it at once shows less of each card, not smaller text.
        fit.click()
        assert page.evaluate(SMALLEST) >= 11
        assert page.evaluate(OUTSIDE) == []
        notebook.shot(f"readable-{count}-{width}-fit")
        while page.locator(".sw-live.sw-far").count():
            page.get_by_role("button", name="+", exact=True).click()
        notebook.card("table_0").scroll_into_view_if_needed()


def test_the_panel_takes_room_only_while_a_step_is_selected(lab, open_notebook):
    notebook = grown(lab, open_notebook, 12)
    page = notebook.page
    canvas, panel, card = page.locator(".sw-live .sw-canvas"), page.locator(".sw-panel"), notebook.card("table_11")

    def widths():
        return canvas.bounding_box()["width"], page.locator(".sw-live .sw-body").bounding_box()["width"]

    expect(panel).to_be_hidden()
    assert widths()[0] == widths()[1]
    for close in (lambda: page.keyboard.press("Escape"), lambda: page.get_by_role("button", name="Close").click()):
        card.click()
        expect(panel).to_be_visible()
        assert 250 < widths()[1] - widths()[0] < 400
        expect(card).to_be_in_viewport()
        notebook.shot("panel-open")
        close()
        expect(panel).to_be_hidden()
        assert widths()[0] == widths()[1]
    page.set_viewport_size({"width": 620, "height": 900})
    card.click()
    expect(panel).to_be_visible()
    assert widths()[0] == widths()[1]
    notebook.shot("panel-narrow")


def test_a_reopened_notebook_shows_the_picture_and_no_error(lab, open_notebook):
    notebook = grown(lab, open_notebook, 12)
    page = notebook.page
    assert [
        ("application/vnd.jupyter.widget-view+json" in output["data"], "text/html" in output["data"])
        for output in notebook.finish(LINEAGE)
        if "data" in output
    ] == [(True, False), (False, True)]
    expect(page.locator(".sw-static")).to_have_count(1)
    expect(page.locator(".sw-static")).to_be_hidden()
    notebook.save()
    page.evaluate("() => window.jupyterapp.shell.currentWidget.sessionContext.shutdown()")
    again = open_notebook(notebook.name, kernel=False)
    page, image = again.page, again.page.locator(".sw-static img")
    expect(image).to_be_visible()
    outputs = page.locator(".jp-OutputArea", has=image)
    view = outputs.locator("> .jp-OutputArea-child").first
    # While there is no kernel, the front end waits for the widget; the new kernel does not have it.
    for words in ("widget", "Error"):
        expect(view).to_contain_text(words, timeout=60_000)
        expect(view).to_be_hidden()
        assert outputs.inner_text().strip() == ""
    for theme in THEMES:
        again.theme(theme)
        image.scroll_into_view_if_needed()
        again.shot(f"reopened-{theme.split()[1].lower()}")
        # In its natural size the smallest text is 11 px; what does not fit scrolls.
        assert image.evaluate("(image) => image.getBoundingClientRect().width / image.naturalWidth") == 1
    page.set_viewport_size({"width": 620, "height": 900})
    assert page.locator(".sw-static").evaluate("(box) => box.scrollWidth > box.clientWidth && box.clientWidth < 620")
    assert image.evaluate("(image) => image.getBoundingClientRect().width / image.naturalWidth") == 1
    again.wait_for_kernel()
    # A live one takes its place again.
    again.run(0)
    again.run(LINEAGE)
    expect(page.locator(".sw-live .sw-canvas")).to_be_visible()
    expect(image).to_be_hidden()
