"""Values of notebooks in a real kernel: classes of cells, figures of functions, what is said of them."""

CLASS = "import dataclasses\n@dataclasses.dataclass\nclass Point:\n    x: int\n    def twice(self): return 2 * self.x"
POINTS = "%%asset points\npoints = {'deep': [Point(1), Point(2)]}"


def again(kernel):
    """Restart the kernel and load the extension on the same store."""
    kernel.restart()
    ran = kernel(f"import os\nos.environ['STEPWELL_STORE'] = {str(kernel.store)!r}\n%load_ext stepwell")
    assert str(kernel.store) in ran.text


def test_classes_of_cells_and_figures_of_functions(kernel):
    kernel(CLASS, "c1")
    first = kernel(POINTS, "c2")
    assert "stored by value" not in first.text
    assert "executed" in first.text
    assert kernel("type(points['deep'][0]) is Point", "c3").text == "True\n"

    inside = kernel("%%asset rows\nclass Row:\n    a = 1\nrows = [Row()]", "c4")
    assert "stored by value" not in inside.text
    assert kernel("type(rows[0]) is Row").text == "True\n"

    kernel("import stepwell\n@stepwell.op\ndef draw():\n    import matplotlib.pyplot as plt\n    plt.plot([1, 2])\n    return plt.gcf()", "c5")  # fmt: skip
    drawn = kernel("%%graph_asset chart\ndraw()", "c6")
    assert sum("image/png" in output["content"].get("data", {}) for output in drawn.outputs) == 1

    again(kernel)
    loaded = kernel("import stepwell\nvalue = stepwell.load('points')\n[each.twice() for each in value['deep']]")
    assert loaded.text == "points: the stored copy of Point is used, because the notebook does not define Point\n[2, 4]\n"
    # It is said once.
    assert kernel("stepwell.load('points')['deep'][0].x").text == "1\n"
    assert (
        kernel("stepwell.load('rows')[0].a").text
        == "rows: the stored copy of Row is used, because the notebook does not define Row\n1\n"
    )
    assert kernel("type(stepwell.load('chart')).__name__, __import__('matplotlib.pyplot').pyplot.get_fignums()").text == "('Figure', [])\n"  # fmt: skip

    kernel(CLASS, "c1")
    assert "points: reused" in kernel(POINTS, "c2").text
    assert kernel("points['deep'] == [Point(1), Point(2)]").text == "True\n"
    kernel(CLASS.replace("2 *", "3 *"), "c1")
    changed = kernel("stepwell.load('points')['deep'][0].twice()")
    assert changed.text == "points: the stored copy of Point is used, because the notebook now defines another Point\n2\n"
