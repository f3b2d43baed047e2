"""What one kernel holds and runs: definitions, versions, store, plans and executions. It knows no front end.

``errors`` has the exceptions, ``text`` formats times, sizes and names, and ``path_contents`` digests what a path leads to. The folders are layers:
``session`` uses all others, ``records`` uses none.
"""
