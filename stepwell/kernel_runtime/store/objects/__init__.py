"""Value files: the stored forms of values that are too large for a catalog row.

===============  ====================================================================================================
value_files      the files below ``objects/``: content-addressed, written once, mapped into memory
header           the header of a value file, which contains a copy of the row
digests          the digests of the parts of a value
checked          witnesses of files that were checked since the last boot; marks of values that are damaged or do not load
===============  ====================================================================================================
"""
