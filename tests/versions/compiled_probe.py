"""Digests, stores and loads what `compiled_classes` lists; run by `test_compiled_classes` in processes of its own."""

import base64
import json
import linecache
import sys
from itertools import count

from compiled_classes import CLASSES

from stepwell.commands.wording import notice_text
from stepwell.kernel_runtime.store.values import codecs
from stepwell.kernel_runtime.store.values.loading import CodeReader, Loading
from stepwell.kernel_runtime.versions.classes import remember_copy
from stepwell.kernel_runtime.versions.data import class_version, data_version, hides
from stepwell.kernel_runtime.versions.ownership import owner

MAIN = vars(sys.modules["__main__"])
BEFORE = {
    *MAIN,
    "BEFORE",
    "SERIAL",
    "READER",
    "define",
    "undefine",
    "digests",
    "store",
    "load",
    "bytes_of",
    "text_of",
    "notice_text",
}
SERIAL = count(1)
READER = CodeReader(class_version, owner, hides, remember_copy)


def define(*texts):
    """Execute cells as a kernel does, and return the class that they define."""
    for text in texts:
        name = f"/tmp/ipykernel_1/{next(SERIAL)}.py"
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), MAIN)
    return MAIN["Model"]


def undefine():
    for name in {*MAIN} - BEFORE:
        del MAIN[name]


def digests():
    """Return for each class its versions, and what each edit gives."""
    found = {}
    for name, (imports, text, made, counting, silent) in CLASSES.items():
        first = class_version(define(imports, text))
        data = data_version(eval(made, MAIN))
        used = class_version(MAIN["Model"])
        edits = [class_version(define(imports, text.replace(*edit))) for edit in (*counting, *silent)]
        again = class_version(define(imports, text))
        found[name] = {"first": first, "data": data, "used": used, "again": again, "data again": data_version(eval(made, MAIN)), "edits": edits}  # fmt: skip
        undefine()
    return found


def store():
    """Return for each class the stored form of its instance."""
    found = {}
    for name, (imports, text, made, _, _) in CLASSES.items():
        define(imports, text)
        encoded = codecs.encode([eval(made, MAIN)], key=name, code=READER)
        found[name] = [text_of(encoded.stream), [text_of(each) for each in encoded.buffers], encoded.codec]
        undefine()
    return found


def load(stored):
    """Return for each class what a load gives: where it is defined, where it is not, and where it was edited."""
    found = {}
    for name, (imports, text, made, counting, _) in CLASSES.items():
        stream, buffers, codec = stored[name]
        each = found[name] = {}
        cells = {"defined": text, "absent": "", "edited": text.replace(*counting[0])}
        for way, cell in cells.items():
            lines = []
            if cell:
                define(imports, cell)
            try:
                (value,) = codecs.decode(
                    codec,
                    bytes_of(stream),
                    [bytes_of(one) for one in buffers],
                    key=name,
                    loading=Loading(READER, lines.append),
                )
            except Exception as error:
                each[way] = {"error": f"{type(error).__name__}: {error} {getattr(error, 'where', '')}"}
            else:
                model = MAIN.get("Model")
                each[way] = {
                    "lines": list(map(notice_text, lines)),
                    "isinstance": type(value) is dict or (isinstance(model, type) and isinstance(value, model)),
                    "data": data_version(value),
                    "shown": repr(value)[:60],
                }
                if way == "absent" and cells["defined"]:
                    define(imports, text)
                    each[way]["expected"] = data_version(eval(made, MAIN))
            undefine()
    return found


def bytes_of(text):
    return base64.b64decode(text)


def text_of(data):
    return base64.b64encode(bytes(data)).decode()


BEFORE |= {*MAIN}
if __name__ == "__main__":
    print(
        json.dumps({"digests": digests, "store": store}[sys.argv[1]]() if sys.argv[1] != "load" else load(json.load(sys.stdin)))
    )
