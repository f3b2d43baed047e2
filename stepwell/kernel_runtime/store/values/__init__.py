"""A value's stored form: what is kept of it, and how it comes back the same.

===============  ====================================================================================================
codecs           the value of record by exact type
pickling         everything that has no form of its own: pickle, protocol 5, large buffers beside the stream
arrays           arrays whose bytes pickle would copy into its stream; `numpy_forms` what numpy's own pickle changes
code_copies      classes and functions of a notebook by name, with a copy by value; `code_resolving` which one is used
framing          the executable stream and the copies as one
path_results     a path with the contents of its file
libraries        which versions wrote a value; `loading` what loading needs beside the stored form
round_trip       whether a value comes back: what is not known to is loaded once before it is stored
structure        whether offsets and indices of loaded data stay inside it
describing       the name of a type and a value's size, for a reader
===============  ====================================================================================================
"""
