"""What one kernel holds and runs: definitions, versions, store, plans and executions. The modules in this package import no front end.

``errors`` has the exceptions, ``text`` formats times, sizes and names, and ``path_contents`` digests the contents of files and folders. The folders
are layers: ``session`` uses all others, ``records`` uses none.
"""
