"""A value that another version of a library wrote and that does not load is missing, and the message says which version wrote it."""

import textwrap

import pytest

from stepwell.kernel_runtime.errors import ValueUnavailableError
from stepwell.kernel_runtime.store.store import open_store

PACKAGE = {
    "1.0": "class Model:\n    def __init__(self, n): self.n = n\n",
    # The class is where it was, and reads what the old one wrote.
    "1.1": "class Model:\n    def __init__(self, n): self.n = n\n    more = 1\n",
    "2.0": "class Estimator:\n    def __init__(self, n): self.n = n\n\ndef Model(n): return Estimator(n)\n",
}


def install(folder, version):
    """Put a version of a distribution where it is imported from, in place of another."""
    package = folder / "site" / "modelling"
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text(PACKAGE[version])
    for old in (folder / "site").glob("*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    info = folder / "site" / f"modelling-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: modelling\nVersion: {version}\n")


RUN = """
import sys
sys.path.insert(0, "site")
sys.dont_write_bytecode = True
import modelling
import stepwell
from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.session import get_session

# The library's version does not count, so that what is stored has to be tried.
@stepwell.asset(ignore=["modelling"])
def model():
    print("fits")
    return {"m": modelling.Model(5)} if SMALL else {"m": modelling.Model(5), "data": bytearray(100_000)}

@stepwell.asset
def score(model):
    return model["m"].n
"""


@pytest.fixture
def script(python):
    def run(what, *, small):
        return python(RUN.replace("SMALL", str(small)) + textwrap.dedent(what)).splitlines()

    return run


def test_what_does_not_load_is_missing_and_computed_again_with_the_version_that_wrote_it(script, tmp_path):
    install(tmp_path, "1.0")
    assert script('stepwell.materialize([model, score], store="kept")', small=True) == ["fits"]
    install(tmp_path, "1.1")
    loads = 'print(stepwell.load("model", store="kept")["m"].n, tuple(map(notice_text, stepwell.materialize([model], store="kept").notices)))'
    assert script(loads, small=True) == ["5 ()"]

    install(tmp_path, "2.0")
    missing, error, below, again, notes = script(
        """
        state = get_session().states([model], store="kept")["model"]
        print(state.state, "|", state.reasons[0].text)
        try:
            stepwell.load("model", store="kept")
        except stepwell.StepwellError as error:
            print(type(error).__name__, "|", str(error).replace(chr(10), " | "))
        print(stepwell.materialize([score], store="kept").steps[-1].status)
        print(tuple(map(notice_text, stepwell.materialize([model], store="kept").notices)))
        """,
        small=True,
    )
    assert (
        missing
        == "missing | its stored value cannot be loaded: it was written with modelling 1.0, and this environment has modelling 2.0"
    )
    assert error.startswith(
        "ValueUnavailableError | the stored value of 'model' cannot be loaded: it was written with modelling 1.0, and this environment has modelling 2.0"
    )
    assert "pip install modelling==1.0" in error
    # The value below is still known: nothing runs for it.
    assert (below, again) == ("reused", "fits")
    assert notes == "('model: its stored value cannot be loaded: it was written with modelling 1.0, and this environment has modelling 2.0; model is computed again',)"  # fmt: skip


def test_a_step_that_needs_what_does_not_load_has_it_computed_again(script, tmp_path):
    install(tmp_path, "1.0")
    script('stepwell.materialize([model], store="kept")', small=False)
    install(tmp_path, "2.0")
    said = script(
        'result = stepwell.materialize([score], store="kept")\nprint(result.value("score"), [step.status for step in result.steps])',
        small=False,
    )
    assert said == ["fits", "5 ['executed', 'executed']"]


def test_a_library_that_is_not_here_is_named(python, tmp_path, store):
    install(tmp_path, "1.0")
    python("import sys\nsys.path.insert(0, 'site')\nimport pickle, modelling\nfrom stepwell.kernel_runtime.store.store import open_store\npickle.dump(open_store('kept').put(modelling.Model(1), key='a', memo_key='m'), open('row', 'wb'))")  # fmt: skip
    import pickle

    with pytest.raises(ValueUnavailableError, match=r"written with modelling 1\.0, and this environment has no modelling"):
        open_store(tmp_path / "kept").get(pickle.loads((tmp_path / "row").read_bytes()), key="a")
