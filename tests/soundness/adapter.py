"""The edit scenarios over the whole product: definitions from the notebook's functions, one store directory, public names only."""

from pathlib import Path

import stepwell


class Stepwell:
    name = "stepwell"
    # Declared environment names, SQL outside notebooks and --volatile come with the issue on versions.
    features = {"config", "files"}

    def preload(self):
        import duckdb  # noqa: F401 - later forks start warm
        import pyarrow  # noqa: F401 - as above

    def run(self, session, target):
        definitions = []
        for name in session.order(target):
            upstream, config = session.inputs(name)
            definitions += [stepwell.asset(name=key)(constant(value)) for key, value in config.items() if key not in session.registry]
            definitions.append(stepwell.asset(name=name)(session.registry[name].fn))
        result = stepwell.materialize(definitions, store=Path(session.store))
        return {target: result.value(target)}


def constant(value):
    def config():
        return value

    return config
