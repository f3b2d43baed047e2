"""Value files: the stored forms of values that are too large for a catalog row.

===============  ====================================================================================================
value_files      the files below ``objects/``: content-addressed, written once, mapped into memory
header           the header of a value file: sizes, digests, and the data from which a lost catalog row can be restored
digests          digests of the stream and the buffers of a stored value, computed while the value file is written
checked          records of the files that were checked since the machine booted, and of the values that failed to load
===============  ====================================================================================================
"""
