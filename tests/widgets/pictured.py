"""Lineages to draw: one with everything that a card can be, random ones, and one with hostile names."""

from itertools import pairwise

from hypothesis import strategies as st

from stepwell.kernel_runtime.records.runs import Lineage, LineageEdge, LineageNode

NOON = 1_795_348_800.0

HOSTILE = [
    '<script>alert("1")</script>',
    "a\"b'c&d<e>",
    "]]><!-- -->",
    "\x00\x08\x0b\x1f\ufffe\ud800",
    "line one\nline two\ttab",
    "{{ braces }} %s $x `y` \\n",
    "日本語のとても長い名前のアセットですから短くしなければなりません",
    "e\u0301" * 60,
    "x" * 500,
    "",
]


def everything():
    nodes = (
        LineageNode(
            "raw/weather",
            "raw/weather",
            "asset",
            "fresh",
            summary="26,115 × 15 · 2.1 MB",
            seconds=0.2,
            created=NOON - 7200,
        ),
        LineageNode("raw/planes", "raw/planes", "source", None),
        LineageNode(
            "raw/flights",
            "raw/flights",
            "asset",
            "fresh",
            summary="336,776 × 19 · 41.0 MB",
            seconds=1.9,
            created=NOON - 7200,
        ),
        LineageNode("clean", "clean", "asset", "stale", reason="drop_cancelled() changed", created=NOON - 9000, seconds=4.0),
        LineageNode("daily", "daily", "sql_asset", "may change", reason="clean is stale"),
        LineageNode("split", "split", "multi_asset", "missing", reason="never materialized", assets=("train", "test")),
        LineageNode("report.fetch", "report.fetch", "op", "fresh", parent="report", created=NOON - 86400, seconds=0.03),
        LineageNode("report.transform", "report.transform", "op", "failed", parent="report", error="KeyError: 'carrier'"),
        LineageNode("model", "model", "asset", "unverifiable", reason="a lock in cfg"),
        LineageNode("mail_worst", "mail_worst", "job", None),
    )
    arrows = [
        ("raw/weather", "daily", "value"),
        ("raw/planes", "daily", "order"),
        ("raw/flights", "clean", "value"),
        ("clean", "daily", "value"),
        ("clean", "split", "value"),
        ("daily", "report.fetch", "value"),
        ("report.fetch", "report.transform", "value"),
        ("model", "report.transform", "value"),
        ("split", "model", "value"),
        ("report.transform", "mail_worst", "value"),
    ]
    return Lineage(nodes, tuple(LineageEdge(*arrow) for arrow in arrows))


def hostile():
    nodes = tuple(
        LineageNode(
            f"{place}{text}",
            text,
            "op",
            "failed",
            parent=HOSTILE[place % 3],
            summary=text,
            error=text,
            reason=text,
            where=text,
            description=text,
            code=text,
            group=text,
        )
        for place, text in enumerate(HOSTILE)
    )
    return Lineage(nodes, tuple(LineageEdge(a.key, b.key, "order") for a, b in pairwise(nodes)))


@st.composite
def lineages(draw):
    count = draw(st.integers(0, 14))
    parents = draw(st.lists(st.sampled_from(["", "", "", "g1", "g2"]), min_size=count, max_size=count))
    nodes = tuple(
        LineageNode(f"n{i}", f"n{i}", "op" if parents[i] else "asset", "fresh", parent=parents[i]) for i in range(count)
    )
    pairs = [(a, b) for b in range(count) for a in range(b)]
    chosen = draw(st.lists(st.sampled_from(pairs), max_size=20)) if pairs else []
    return Lineage(nodes, tuple(LineageEdge(f"n{a}", f"n{b}") for a, b in chosen))
