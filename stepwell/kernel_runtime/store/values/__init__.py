"""The stored form of a value: how it is written, and how it comes back the same.

===============  ====================================================================================================
codecs           the value of record by exact type
pickling         everything without a form of its own: pickle, protocol 5, large buffers out of band
code_copies      classes and functions of a notebook by name, with a copy by value
framing          the executable stream and the copies as one
path_results     a path with the contents of its file
libraries        which versions wrote a value; `loading` what is needed to load it
round_trip       whether a value comes back the same; unknown types are loaded once before they are stored
structure        type and size for a reader, and whether offsets and indices of loaded data stay inside it
===============  ====================================================================================================
"""
