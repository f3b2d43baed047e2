"""Figures are stored with their rendered picture, and nothing opens where they are loaded."""

import base64

import stepwell
from stepwell.kernel_runtime.session import get_session
from stepwell.kernel_runtime.store.signing import read_outputs

MAKE = """
def draw():
    import matplotlib
    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    figure, axes = plt.subplots()
    axes.plot([1, 2], [3, 4])
    return figure
"""


@stepwell.asset
def chart():
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot([1, 2], [3, 4])
    return figure


@stepwell.asset
def undrawable():
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0, 0, "$\\notacommand$")
    return figure


def test_the_picture_of_a_functions_figure_is_kept_with_what_it_displayed(store_dir):
    session = get_session()
    stepwell.materialize([chart], store=store_dir)
    store = session.open(store_dir)
    item = session.current("chart", store)
    (display,) = read_outputs(store.catalog, store.signer, item.run_id, item.step_key)
    assert base64.b64decode(display.data["image/png"]).startswith(b"\x89PNG")
    reused = stepwell.materialize([chart], store=store_dir)
    assert [step.status for step in reused.steps] == ["reused"]


def test_a_figure_that_cannot_be_drawn_is_a_value_all_the_same(store_dir):
    result = stepwell.materialize([undrawable], store=store_dir)
    assert result.status == "success"
    assert [step.status for step in stepwell.materialize([undrawable], store=store_dir).steps] == ["reused"]


def test_figures_inside_other_values_open_nothing_where_they_are_loaded(python):
    stored = python(
        MAKE
        + """
import pickle
from stepwell.kernel_runtime.store.store import open_store
figure = draw()
pickle.dump(open_store("kept").put({"f": [figure], "axes": figure.axes[0]}, key="a", memo_key="m"), open("row", "wb"))
import matplotlib.pyplot as plt
print(plt.get_fignums())
"""
    )
    assert stored == "[1]\n"  # the user's own figure stays open
    loaded = python(
        """
import pickle, sys
from stepwell.kernel_runtime.store.store import open_store
value = open_store("kept").get(pickle.load(open("row", "rb")), key="a")
print(type(value["f"][0]).__name__, value["axes"].figure is value["f"][0], value["axes"].lines[0].get_ydata().tolist(), "matplotlib.pyplot" in sys.modules)
"""
    )
    assert loaded == "Figure True [3, 4] False\n"


def test_no_figure_no_matplotlib(python):
    assert python("import stepwell, sys\n@stepwell.asset\ndef a(): return 1\nstepwell.materialize([a])\nprint('matplotlib' in sys.modules)") == "False\n"  # fmt: skip
