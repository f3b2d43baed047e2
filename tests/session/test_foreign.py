"""A value that another user's key signed counts as missing: it is computed again where it is needed, and one line says why."""

import os
import subprocess
import sys

import numpy as np
import pytest

import stepwell
from stepwell.kernel_runtime.errors import TrustNeededError, UntrustedValueError
from stepwell.kernel_runtime.session import Session, get_session


@pytest.fixture
def program(tmp_path):
    """Run a script in a fresh process with a key and a home of its own; return what it printed."""
    (tmp_path / "work.py").write_text(
        "import numpy as np\n"
        "def ran(result):\n    return [step.key for step in result.steps if step.status == 'executed']\n"
        "from stepwell import asset\n"
        "@asset\ndef raw():\n    return {'x': np.arange(20_000)}\n"
        "@asset\ndef small(raw):\n    return [len(raw['x'])]\n"
        "@asset\ndef number(small):\n    return small[0]\n"
    )

    def run(text, *, home, key=""):
        (tmp_path / home).mkdir(exist_ok=True)
        env = {**os.environ, "HOME": str(tmp_path / home), "PYTHONPATH": str(tmp_path)}
        for name in ("STEPWELL_KEY_FILE", "XDG_CONFIG_HOME"):
            env.pop(name, None)
        if key:
            env["STEPWELL_KEY_FILE"] = str(tmp_path / key)
        text = "import work, stepwell\nfrom work import *\n" + text
        done = subprocess.run(
            [sys.executable, "-c", text],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


RUN = "from stepwell.commands.wording import notice_text\nr = stepwell.materialize([raw, small, number], store='kept')\nprint(ran(r), *map(notice_text, r.notices), sep='|')"


def test_another_users_values_are_computed_again_with_one_line_that_names_the_command(program):
    assert program(RUN, home="ann") == "['raw', 'small', 'number']\n"
    # The number is data and needs no signature; what is above it is not needed.
    one = "r = stepwell.materialize([number], definitions=work, store='kept')\nprint(ran(r))"
    assert program(one, home="ben") == "[]\n"
    ran, note = program(RUN, home="ben").strip().split("|")
    assert ran == "['raw', 'small']"
    assert note.startswith("raw, small are signed with another key (")
    assert note.endswith("if you trust the author, run: stepwell trust raw small")
    assert program(RUN, home="ben") == "[]\n"
    # Small values are each one's own in their rows; a file has one signature, the last one's.
    assert program(RUN, home="ann").startswith("['raw']|raw is signed with another key (")


def test_two_homes_that_share_a_key_file_share_values(program):
    program(RUN, home="ann", key="shared key")
    packing = "\nstepwell.pack('*number', 'out.zip', store='kept')"
    assert program(RUN + packing, home="ci", key="shared key") == "[]\n"
    trusting = "stepwell.trust('out.zip', store='mine'{})\n" + RUN.replace("kept", "mine")
    assert program(trusting.format(""), home="ci", key="shared key") == "[]\n"
    assert program(trusting.format(", yes=True"), home="ben") == "[]\n"


def stored_asset(store):
    """Return an asset whose pickled value another session has put into a file of the store."""

    @stepwell.asset
    def raw():
        return {"x": np.arange(20_000)}

    maker = Session()
    maker.materialize([raw], store=store)
    maker.close()
    return raw


def test_a_state_says_so_and_trust_changes_it(tmp_path, monkeypatch):
    raw = stored_asset(tmp_path / "kept")
    monkeypatch.setenv("STEPWELL_KEY_FILE", str(tmp_path / "other"))
    session = get_session()
    (state,) = session.states([raw], store=tmp_path / "kept").values()
    assert (state.state, state.reasons[0].kind) == ("missing", "untrusted")
    assert "signed with another key" in state.reasons[0].text
    assert state.reasons[0].detail.endswith("stepwell trust raw")
    with pytest.raises(UntrustedValueError, match="stepwell trust raw"):
        session.load("raw", store=tmp_path / "kept")
    with pytest.raises(TrustNeededError, match=r"1 value in .* is signed with another key"):
        stepwell.trust("raw", store=tmp_path / "kept")
    assert [value.key for value in stepwell.trust("raw", store=tmp_path / "kept", yes=True).values] == ["raw"]
    (state,) = session.states([raw], store=tmp_path / "kept").values()
    assert state.state == "fresh"
    assert session.load("raw", store=tmp_path / "kept")["x"][5] == 5
    assert stepwell.trust(all=True, store=tmp_path / "kept").values == ()


def test_a_value_without_a_signature_is_not_called_signed(tmp_path):
    raw = stored_asset(tmp_path / "kept")
    (path,) = (tmp_path / "kept" / "objects").rglob("*.pickle")
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:16] + b"\0" * 40 + data[56:])
    session = Session()
    (state,) = session.states([raw], store=tmp_path / "kept").values()
    assert state.reasons[0].kind == "untrusted"
    assert state.reasons[0].text.startswith("the value is not signed, and loading it")


def test_steps_inside_an_asset_go_with_it(tmp_path):
    @stepwell.op
    def fetch():
        return [1, 2]

    @stepwell.op
    def count(data):
        return {"n": len(data)}

    @stepwell.graph_asset
    def report():
        return count(fetch())

    stepwell.materialize([report], store=tmp_path / "kept")
    packed = stepwell.pack("report", tmp_path / "out.zip", store=tmp_path / "kept")
    assert {value.key for value in packed.values} == {"report", "report.fetch"}
    with pytest.raises(stepwell.StepwellError, match="reprot"):
        stepwell.pack("reprot", tmp_path / "no.zip", store=tmp_path / "kept")
    with pytest.raises(stepwell.StepwellError, match="no key to pack was given"):
        stepwell.pack([], tmp_path / "no.zip", store=tmp_path / "kept")
    assert not (tmp_path / "no.zip").exists()
