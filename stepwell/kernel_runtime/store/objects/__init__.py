"""Where stored forms are: value files.

===============  ====================================================================================================
value_files      the files below ``objects/``: content-addressed, written once, mapped
header           the header of a value file, and the row in it; `digests` of its parts
checked          which files were checked since the machine was started; which values are damaged or do not load
===============  ====================================================================================================
"""
