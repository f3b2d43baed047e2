"""The doctor: checks a store and its environment, reports findings with remedies, and makes safe repairs.

``examination`` runs the checks and formulates the findings. ``contents`` checks value files and the catalog, removes garbage and rebuilds a
lost catalog. ``surroundings`` checks locks, mounts, permissions, the key and the disk.
"""
