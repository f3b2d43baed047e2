"""The tests on every Python: ``nox`` runs all that are installed, ``nox -s tests-3.14 -- tests/versions`` some of them on one."""

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.error_on_missing_interpreters = False
PYTHONS = [
    each.rpartition(" ")[2] for each in nox.project.load_toml("pyproject.toml")["project"]["classifiers"] if " :: 3." in each
]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests that need no browser; arguments are pytest's."""
    session.install("-e", ".[test]")
    session.run("pytest", "-q", "-n", "2", "-m", "not browser", *session.posargs)


@nox.session(python=PYTHONS)
def quickstart(session: nox.Session) -> None:
    """Execute the quickstart twice: the second run must execute no step again."""
    session.install("-e", ".[notebooks]")
    folder = session.create_tmp()
    session.run("python", "-c", f"import shutil; shutil.copytree('notebooks', {folder!r} + '/notebooks', dirs_exist_ok=True)")
    with session.chdir(folder):
        for _ in range(2):
            session.run("stepwell", "run", "notebooks/quickstart.ipynb")
