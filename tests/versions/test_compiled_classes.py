"""Classes that a library compiles count by what they were made from, in every process the same; their instances come back as theirs."""

import json
import subprocess
import sys

import compiled_probe
import pytest
from compiled_classes import CLASSES

# Classes of which cloudpickle makes no copy: their values need the class.
NO_COPY = {"sqlalchemy", "msgspec", "plain with slots and descriptors"}


def probe(*arguments, given="", seed="0"):
    done = subprocess.run(
        [sys.executable, compiled_probe.__file__, *arguments],
        input=given, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""},
    )  # fmt: skip
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def digests():
    return probe("digests")


@pytest.fixture(scope="module")
def elsewhere():
    return probe("digests", seed="7")


@pytest.fixture(scope="module")
def loaded():
    return probe("load", given=json.dumps(probe("store")))


@pytest.mark.parametrize("name", CLASSES)
def test_equal_text_is_the_same_class(name, digests, elsewhere):
    found = digests[name]
    assert found["again"] == found["first"], "defined again in the kernel"
    assert found["used"] == found["first"], "its first instance completed it"
    assert found["data again"] == found["data"] is not None
    assert elsewhere[name] == found, "in another process"


@pytest.mark.parametrize("name", CLASSES)
def test_every_edit_of_what_the_class_is_made_from_counts(name, digests):
    counting, silent = CLASSES[name][3:]
    found = digests[name]
    assert len(found["edits"]) == len(counting) + len(silent)
    missed = [edit for edit, version in zip(counting, found["edits"], strict=False) if version == found["first"]]
    assert missed == []
    assert found["edits"][len(counting) :] == [found["first"]] * len(silent)


@pytest.mark.parametrize("name", CLASSES)
def test_a_value_comes_back_as_an_instance_of_the_class_with_the_same_text(name, loaded, digests):
    found = loaded[name]["defined"]
    assert found["lines"] == []
    assert found["isinstance"]
    assert found["data"] == loaded[name].get("absent", {}).get("expected", found["data"])


@pytest.mark.parametrize("name", [name for name in CLASSES if name not in NO_COPY])
def test_a_value_of_a_copied_class_has_the_data_version_of_the_original(name, loaded):
    found = loaded[name]
    assert found["absent"]["data"] == found["absent"]["expected"]
    assert found["edited"]["data"] == found["absent"]["expected"]
    if name != "TypedDict":
        assert not found["edited"]["isinstance"]
        assert "the stored copy of Model is used" in found["edited"]["lines"][0]


@pytest.mark.parametrize("name", sorted(NO_COPY))
def test_without_a_copy_the_class_has_to_be_as_it_was(name, loaded):
    assert "ValueUnavailableError" in loaded[name]["edited"]["error"]
