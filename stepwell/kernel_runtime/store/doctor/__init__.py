"""The implementation of ``stepwell doctor``: checks of a store and its environment, removal of garbage, and the rebuild of a lost catalog.

===============  ====================================================================================================
examination      runs all checks in order, and describes the result of each check as a finding with a remedy
contents         checks value files and the catalog, finds and removes garbage, rebuilds a lost catalog
surroundings     checks file locks, the file system, permissions, the signing key, free disk space and versions
===============  ====================================================================================================
"""
