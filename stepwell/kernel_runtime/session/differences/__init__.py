"""How two values differ: frames by rows and cells, arrays by elements, texts by lines, small objects by paths.

============  ==================================================================================================
compare       `compare`: chooses by the types of both values; texts, small objects and arrays
difference    `Difference` and what it holds: plain frozen data
columns       a frame's columns as Arrow, so that DuckDB can compare them; other columns are compared by digest
frames        matching rows and comparing cells, in a DuckDB instance of its own with a memory limit
============  ==================================================================================================
"""

from stepwell.kernel_runtime.session.differences.compare import compare
from stepwell.kernel_runtime.session.differences.difference import Difference

__all__ = ["Difference", "compare"]
