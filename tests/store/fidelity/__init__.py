"""What is tried for fidelity, one file for each library."""

from . import arrow_cases, builtin_cases, numpy_cases, pandas_cases, polars_cases, scipy_cases, sklearn_cases
from .registered import CASES

__all__ = [
    "CASES",
    "arrow_cases",
    "builtin_cases",
    "numpy_cases",
    "pandas_cases",
    "polars_cases",
    "scipy_cases",
    "sklearn_cases",
]
