"""Where stored forms are: value files, and the inline form of small values.

===============  ====================================================================================================
header           the header of a value file; `digests` of its parts
stored_form      the inline form of a small value, and the row in a header
value_files      the files below ``objects/``: content-addressed, written once, mapped
unrecorded       protects a file from collection until its row is committed
witness          which files were checked since the machine was started
damaged          values that a plan cannot count on: damaged, missing, not loadable, signed by another key
===============  ====================================================================================================
"""
