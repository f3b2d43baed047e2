"""`import stepwell` costs next to nothing."""

import json

import pytest

HEAVY = {
    "IPython",
    "anywidget",
    "cloudpickle",
    "detect_secrets",
    "duckdb",
    "graphviz",
    "ipywidgets",
    "nbclient",
    "nbformat",
    "numpy",
    "pandas",
    "polars",
    "pyarrow",
    "pydantic",
    "traitlets",
}


def test_import_loads_nothing_heavy(python):
    loaded = json.loads(python("import stepwell, sys, json; print(json.dumps(list(sys.modules)))"))
    assert "stepwell" in loaded
    assert sorted(HEAVY & {name.partition(".")[0] for name in loaded}) == []


def test_declaring_in_a_script_loads_nothing_heavy_either(python):
    loaded = json.loads(
        python("""
        import sys, json
        from stepwell import asset, op, graph_asset, job

        @op
        def one():
            return 1

        @asset
        def clean():
            return 1

        @graph_asset
        def report():
            return one()

        @job
        def run():
            one()

        print(json.dumps(list(sys.modules)))
        """)
    )
    assert sorted(HEAVY & {name.partition(".")[0] for name in loaded}) == []


def test_every_public_name_is_there():
    import stepwell

    for name in stepwell.__all__:
        assert getattr(stepwell, name) is not None
    assert set(stepwell.__all__) <= set(dir(stepwell))
    with pytest.raises(AttributeError, match="nothing_like_it"):
        stepwell.nothing_like_it
