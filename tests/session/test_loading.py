"""What a load checks, and the doctor as data."""

import numpy as np
import pytest

import stepwell
from stepwell.kernel_runtime.errors import InvalidInvocationError, ValueDamagedError


@stepwell.asset
def numbers():
    return np.arange(20_000)


def test_a_load_may_check_every_byte(store_dir):
    stepwell.materialize([numbers], store=store_dir)
    assert stepwell.load("numbers", store=store_dir, verify="full")[7] == 7
    (path,) = (store_dir / "objects").rglob("*.*")
    data = bytearray(path.read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    for version, verify in ((None, "signed"), (None, "full"), (-1, "full")):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        with pytest.raises(ValueDamagedError, match="materialize 'numbers' again"):
            stepwell.load("numbers", store=store_dir, version=version, verify=verify)
        # Set aside: from now on it counts as missing.
        assert not path.exists()
    with pytest.raises(InvalidInvocationError, match="full"):
        stepwell.load("numbers", store=store_dir, verify="all")


def test_the_doctor_gives_data(store_dir):
    stepwell.materialize([numbers], store=store_dir)
    # How full the disk is depends on the machine.
    assert {found.status for found in stepwell.doctor(store=store_dir) if found.about != "disk"} == {"ok"}
    (path,) = (store_dir / "objects").rglob("*.*")
    path.write_bytes(path.read_bytes()[:-1])
    (found,) = [finding for finding in stepwell.doctor(store=store_dir) if finding.about == "values"]
    assert (found.status, found.facts["keys"]) == ("problem", ["numbers"])
