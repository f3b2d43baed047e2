"""The doctor: checks a store and its surroundings, says what to do, and does what is safe to do.

``examination`` puts the checks together. ``checks`` reads value files and the catalog and removes garbage; ``surroundings`` looks at locks, mounts,
permissions, the key and the disk; ``rebuilding`` makes a new catalog of what can be read of a damaged one and of the headers of value files.
"""
