"""How two values differ: frames by rows and cells, arrays by elements, texts by lines, small objects by paths.

============  ==================================================================================================
compare       `compare`: chooses by the types of both values
result        `Difference` and what it holds: plain frozen data
columns       a frame's columns as Arrow, so that DuckDB can compare them; what cannot be is compared by digest
frames        matching rows and comparing cells, in a DuckDB instance of its own with a memory limit
arrays        numpy and scipy.sparse
objects       dicts, lists, dataclasses, scalars: bounded, with paths; `texts` likewise for lines of text
============  ==================================================================================================
"""

from stepwell.kernel_runtime.session.differences.compare import compare
from stepwell.kernel_runtime.session.differences.result import Difference

__all__ = ["Difference", "compare"]
