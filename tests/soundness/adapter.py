"""The edit scenarios over the whole product: definitions from the notebook's functions, one store directory, public names only."""

import gc
import tempfile
from pathlib import Path

from harness import NotExpressible

import stepwell


class Stepwell:
    name = "stepwell"
    features = {"config", "files", "env", "sql", "volatile"}
    self_reports = {"sql"}

    def preload(self):
        # Forks start with everything imported; what a run opened here they open anew.
        with tempfile.TemporaryDirectory() as folder:
            stepwell.materialize([stepwell.asset(name="first")(constant(1))], store=folder)
        gc.freeze()

    def run(self, session, target):
        definitions = []
        for name in session.order(target):
            upstream, config = session.inputs(name)
            definitions += [
                stepwell.asset(name=key)(constant(value)) for key, value in config.items() if key not in session.registry
            ]
            if session.registry[name].sql is not None:
                definitions.append(stepwell.sql_asset(name, session.registry[name].sql))
                continue
            function = session.registry[name].fn
            # A parameter that is neither an asset nor configuration keeps its default: bound, it is no input.
            defaults = {
                item.name: item.default
                for item in session.params(name)
                if item.default is not item.empty and item.name not in (*upstream, *config)
            }
            declared = stepwell.asset(name=name, volatile=session.registry[name].volatile, reads=session.registry[name].files)
            definitions.append(declared(without(function, defaults, [*upstream, *config]) if defaults else function))
        result = stepwell.materialize(definitions, store=Path(session.store))
        if any(definition.sql is not None for definition in session.registry.values()):
            session.executed.update({step.key: int(step.status == "executed") for step in result.steps})
        return {target: result.value(target)}


def without(function, defaults, names):
    """A function without the parameters that are no inputs; the defaults are in its closure."""
    if names:
        raise NotExpressible("inputs beside a parameter that keeps its default")

    def body():
        return function(**defaults)

    return body


def constant(value):
    def config():
        return value

    return config
