"""``%stepwell doctor`` says what the doctor finds, one line each."""

from IPython.core.error import UsageError


def test_the_doctor_of_the_session(notebook):
    notebook("%%asset clean\nclean = [1, 2]")
    lines = notebook("%stepwell doctor --quick").text.splitlines()
    assert [line[0] for line in lines if not line.startswith(" ")] == ["✓"] * len(lines)
    assert any(line.startswith("✓ catalog: all ") for line in lines)
    assert "--quick" in notebook.refused("%stepwell doctor --frobnicate", UsageError)
