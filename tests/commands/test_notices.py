"""One channel: the runtime gives notices as plain facts, and their wording is in one place."""

import ast
from pathlib import Path

import stepwell
from stepwell.commands import wording

PACKAGE = Path(stepwell.__file__).parent


def calls():
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "notice":
                yield path, node


def test_a_notice_has_facts_and_no_sentences():
    for path, call in calls():
        for argument in (*call.args[1:], *(word.value for word in call.keywords)):
            for node in ast.walk(argument):
                if isinstance(node, ast.JoinedStr):
                    texts = [part.value for part in node.values if isinstance(part, ast.Constant)]
                    assert not any(" " in text for text in texts), f"{path}:{node.lineno}"


def test_every_kind_of_notice_has_a_wording_and_every_wording_a_notice():
    kinds = {call.args[0].value for _, call in calls()}
    assert kinds == set(wording._NOTICES)
