"""Conversion of a value into its stored form, and back into a value that equals the original.

===============  ====================================================================================================
codecs           the codec of each type; the form in which a small value is stored in its catalog row
pickling         pickles (protocol 5, large buffers out of band) of all values without another codec
code_copies      classes and functions of a notebook, stored by name and with a copy of their code
path_results     a path, stored with the contents of its file
loading          what a load needs besides the stored form: functions that read code, and the recorded library versions
round_trip       a test load before a value is stored, if the value contains objects of unknown types
structure        type names and summaries for display; validation of offsets and indices in loaded data
===============  ====================================================================================================
"""
