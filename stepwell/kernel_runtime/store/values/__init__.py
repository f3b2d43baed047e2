"""The stored form of a value: how it is written, and how it comes back the same.

===============  ====================================================================================================
codecs           the value of record by exact type; the form of a small value in its row
pickling         everything without a form of its own: pickle, protocol 5, large buffers out of band
code_copies      classes and functions of a notebook by name, with a copy by value
path_results     a path with the contents of its file
loading          what loading a value needs: who reads code, which libraries wrote it
round_trip       whether a value comes back the same; unknown types are loaded once before they are stored
structure        type and size for a reader, and whether offsets and indices of loaded data stay inside it
===============  ====================================================================================================
"""
