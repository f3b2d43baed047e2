"""A kernel for the editing fuzzer: executes cells, materialises their assets, and computes the same values without a store.

Requests and answers are lines of JSON. A request that is `fresh` is served by a forked child, so that nothing of an earlier
notebook is left in it; any other continues the notebook of the request before.
"""

import hashlib
import importlib
import json
import linecache
import os
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

import stepwell


def show(value):
    """Return a text that is equal exactly for equal values."""
    kind = type(value)
    if kind in {list, tuple}:
        return f"{kind.__name__}[{', '.join(map(show, value))}]"
    if kind is dict:
        return "{" + ", ".join(f"{show(key)}: {show(item)}" for key, item in value.items()) + "}"
    if kind in {set, frozenset}:
        return f"{kind.__name__}<{', '.join(sorted(map(show, value)))}>"
    if kind is np.ndarray:
        return f"array({value.dtype}, {value.shape}, {value.tolist()})"
    if kind is pd.DataFrame:
        return f"frame({[(name, str(value[name].dtype), value[name].tolist()) for name in value]}, {value.index.tolist()})"
    if hasattr(value, "total"):
        return f"{kind.__qualname__}({show(vars(value))}, {show(value.total())})"
    return repr(value)


class Kernel:
    def __init__(self):
        self.notebook = None

    def serve(self, request):
        if request["notebook"] != self.notebook:
            self.begin(request)
        self.write_files(request["files"])
        for name in request["reload"]:
            importlib.reload(sys.modules[name])
        for text in request["cells"]:
            self.execute(text)
        return self.answer(request)

    def begin(self, request):
        self.notebook = request["notebook"]
        work = Path(request["work"])
        work.mkdir(parents=True, exist_ok=True)
        os.chdir(work)
        sys.path.insert(0, str(work))
        main = types.ModuleType("__main__")
        sys.modules["__main__"] = main
        self.space = main.__dict__

    def write_files(self, files):
        for name, text in files.items():
            Path(name).write_text(text)
        importlib.invalidate_caches()

    def execute(self, text):
        name = f"/tmp/ipykernel_{os.getpid()}/{hashlib.md5(text.encode()).hexdigest()[:8]}.py"
        linecache.cache[name] = (len(text), None, text.splitlines(True), name)
        exec(compile(text, name, "exec", dont_inherit=True), self.space)

    def answer(self, request):
        space = self.space
        definitions = [stepwell.asset(name=name)(space[name]) for name in request["assets"]]
        result = stepwell.materialize(definitions, store=request["store"], raise_on_error=False)
        steps = {step.key: step for step in result.steps}
        values = {
            name: show(result.value(name)) if steps[name].status in {"executed", "reused"} else "failed"
            for name in request["assets"]
        }
        computed, cold = {}, {}
        for name in request["assets"]:
            function = space[name]
            try:
                computed[name] = function(
                    **{given: computed[given] for given in function.__code__.co_varnames[: function.__code__.co_argcount]}
                )
                cold[name] = show(computed[name])
            except Exception:
                cold[name] = "failed"
        return {
            "values": values,
            "cold": cold,
            "statuses": {name: step.status for name, step in steps.items()},
            "unverifiable": sorted(
                {text for step in steps.values() for item in step.materializations for text in item.unverifiable}
            ),
            "reasons": {name: step.reason for name, step in steps.items()},
            "data": {name: show(self.find(name)) for name in request["data"]},
        }

    def find(self, name):
        first, *rest = name.split(".")
        found = self.space[first] if not rest else sys.modules[first]
        for part in rest:
            found = getattr(found, part)
        return found


def main():
    warnings.simplefilter("ignore")
    sys.dont_write_bytecode = True
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    kernel = Kernel()
    for line in sys.stdin:
        request = json.loads(line)
        if not request["fresh"]:
            answer = json.dumps(kernel.serve(request))
        else:
            incoming, outgoing = os.pipe()
            if os.fork() == 0:
                os.close(incoming)
                with os.fdopen(outgoing, "w") as pipe:
                    json.dump(Kernel().serve(request), pipe)
                os._exit(0)
            os.close(outgoing)
            with os.fdopen(incoming) as pipe:
                answer = pipe.read()
            os.wait()
        out.write(answer.strip() + "\n")
        out.flush()


if __name__ == "__main__":
    main()
