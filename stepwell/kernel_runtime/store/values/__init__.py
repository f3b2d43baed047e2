"""The stored form of a value: writing it, and loading a value that equals the original.

===============  ====================================================================================================
codecs           the codec of each type; the inline form of a small value in its row
pickling         pickle, protocol 5, with large buffers out of band, for all values without another codec
code_copies      classes and functions of a notebook by name, with a copy by value
path_results     a path with the contents of its file
loading          parameters of loading: functions that read code, and the library versions with which the value was written
round_trip       a test load of values of unknown types, before they are stored
structure        type names and summaries for display; validation of offsets and indices in loaded data
===============  ====================================================================================================
"""
