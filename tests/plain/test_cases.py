"""After an asset cell the notebook is as after the plain cell, in every case."""

import pytest
from all_cases import CASES
from oracle import Kernels, compare

REAL = ("variables_inside", "chain_of_frames", "numpy_stream", "json_dump_lost", "nested_list_changed", "pydantic_validator",
        "option_set_by_a_cell_that_imports", "interrupted_in_the_middle", "axes_used_later", "run_all_twice_with_changes")  # fmt: skip
"""Cases that are also run in real kernels, whose verdicts are to be those of forked ones."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_every_value_is_the_plain_notebooks(case, forks, tmp_path):
    verdict, notes = compare(forks, case, tmp_path / "case")
    assert verdict == "right", "\n".join(notes)


@pytest.mark.parametrize("case", [case for case in CASES if case.id in REAL], ids=lambda case: case.id)
def test_a_real_kernel_gives_the_same_verdict(case, tmp_path):
    verdict, notes = compare(Kernels(), case, tmp_path / "case")
    assert verdict == "right", "\n".join(notes)


def test_every_case_has_a_name_of_its_own():
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names)
    assert set(names) >= set(REAL)
