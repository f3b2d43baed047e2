"""The doctor: checks a store and its surroundings, says what to do, and does what is safe to do.

``findings`` is the data; ``surroundings`` looks at locks, mounts, permissions, the key and the disk; ``catalog_check`` and ``files`` at what the
store holds; ``examination`` puts them together. ``salvage`` reads what can be read of a damaged catalog, ``rebuilding`` makes a
new one of that and of the headers of the value files; ``cleaning`` removes what is surely garbage.
"""
