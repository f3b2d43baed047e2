"""What is tried of scipy."""

import numpy as np
import scipy.sparse as sp

from .registered import case


def sparse(kind, form):
    def make():
        return getattr(sp, f"{form}_{kind}")(sp.coo_matrix(([1.0, 2.0, -3.0], ([0, 1, 2], [2, 0, 1])), shape=(3, 4)))

    return make


for _form in ("csr", "csc", "coo", "bsr", "dia", "dok", "lil"):
    case("scipy.sparse", f"{_form}_array", sparse("array", _form))
    case("scipy.sparse", f"{_form}_matrix", sparse("matrix", _form))


def not_canonical():
    return sp.csr_array((np.array([1.0, 2.0, 3.0]), np.array([2, 0, 0]), np.array([0, 3])), shape=(1, 3))


def canonical():
    value = sparse("array", "csr")()
    assert value.has_canonical_format
    assert value.has_sorted_indices
    return value


case("scipy.sparse", "duplicates, unsorted", not_canonical)
case("scipy.sparse", "canonical flags looked at", canonical)
case(
    "scipy.sparse",
    "int64 indices",
    lambda: sp.csr_array((np.array([1.0]), np.array([0], "i8"), np.array([0, 1], "i8")), shape=(1, 2)),
)
case("scipy.sparse", "complex64", lambda: sp.csc_array(np.array([[0, 1j]], "c8")))
case("scipy.sparse", "explicit zeros", lambda: sp.coo_array(([0.0, 1.0], ([0, 1], [0, 1])), shape=(2, 2)))
case("scipy.sparse", "1-d", lambda: sp.coo_array([0, 1, 0, 2]))
case(
    "scipy.sparse",
    "large",
    lambda: sp.random_array((400, 400), density=0.2, rng=np.random.default_rng(0), format="csr"),
)
