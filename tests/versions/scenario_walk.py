"""An adapter for the edit scenarios over the versions layer alone: code versions, data versions and recorded reads.

The store is a folder of pickles. Everything else of the product is left out, so that a wrong verdict points at a version.
"""

import contextlib
import pickle
from hashlib import sha256
from pathlib import Path

from stepwell.kernel_runtime.reads import ReadRecorder, read_holds, watch
from stepwell.kernel_runtime.versions.data import data_version
from stepwell.kernel_runtime.versions.walk import CodeWalk


def keyed(data):
    return sha256(b"a key" + data).hexdigest()


class Walk:
    name = "versions"
    features = {"config", "files", "env", "volatile"}

    def run(self, session, target):
        store = Path(session.store)
        values, versions, self.notes = {}, {}, {}
        watch()
        names = {name: name for name in session.registry}
        walk = CodeWalk(asset_names=names, namespace=session.ns)
        for name in session.order(target):
            definition = session.registry[name]
            upstream, config = session.inputs(name)
            code = walk.of(definition.fn, path=name)
            self.notes[name] = [(item.path, item.reason) for item in code.unverifiable]
            key = [
                name,
                code.digest,
                [(up, versions[up]) for up in upstream],
                [(k, data_version(v)) for k, v in sorted(config.items())],
            ]
            memo = store / sha256(repr(key).encode()).hexdigest()
            found = None
            if memo.exists() and not definition.volatile and not code.unverifiable:
                for reads, stored in reversed(pickle.loads(memo.read_bytes())):
                    if all(read_holds(read, keyed) for read in reads):
                        found = stored
                        break
            if found is None:
                arguments = {up: pickle.loads(pickle.dumps(values[up])) for up in upstream}
                with ReadRecorder((store,), keyed, definition.files) as recorder:
                    value = definition.fn(**arguments, **config)
                found = (value, data_version(value) or sha256(pickle.dumps(value)).hexdigest())
                earlier = pickle.loads(memo.read_bytes()) if memo.exists() else []
                with contextlib.suppress(Exception):
                    memo.write_bytes(pickle.dumps([*earlier, (recorder.reads, found)]))
            values[name], versions[name] = found
        return values

    def info(self, session):
        return self.notes
