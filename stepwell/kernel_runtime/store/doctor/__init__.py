"""The doctor: checks a store and its surroundings, says what to do, and does what is safe to do.

``examination`` puts the checks together and words them. ``contents`` checks value files and the catalog, removes garbage and rebuilds a lost catalog;
``surroundings`` looks at locks, mounts, permissions, the key and the disk.
"""
