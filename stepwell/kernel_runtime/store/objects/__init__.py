"""Where stored forms are: value files, and the inline form of small values.

===============  ====================================================================================================
files            the files below ``objects/``: content-addressed, written once, mapped copy-on-write
header           what a value file begins with; `contents` writes, opens and maps its bytes
digests          blake3 of each part, beside the writing
inline_form      the form of a small value in its row
about            what a file's header says of its row, for making a lost catalog anew
unrecorded       what protects a file from collection until its row is there
witness          which files were checked since the machine was started
damaged          damaged files, which are set aside, and marks of values that do not load
lacking          which stored values a plan cannot count on
===============  ====================================================================================================
"""
