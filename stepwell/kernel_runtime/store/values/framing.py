"""Streams that are more than a pickle: a head that says what else is in them, parts, and the pickle.

A plain pickle begins with its own first byte and is stored as it is. What needs more (copies of the notebook's classes, the path of a file whose
contents are kept) is framed, so that all of it is one stream: what is signed, and what the digest is of, is always the stream::

    magic, length of the head, length of the copies       16 bytes
    head (JSON)                                            what the stream is, what it names
    copies                                                 a pickle of classes and functions by value; may be empty
    pickle                                                 of the value; may be empty
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any

_PREFIX = struct.Struct("<8sII")
_MAGIC = b"SWFRAME\x01"


@dataclass(frozen=True, slots=True)
class Frame:
    """A stream taken apart."""

    head: dict[str, Any]
    copies: bytes | memoryview
    pickle: bytes | memoryview


def framed(frame: Frame) -> bytes:
    """Return the stream of a frame; equal frames are equal streams."""
    head = json.dumps(frame.head, separators=(",", ":"), sort_keys=True).encode()
    return b"".join((_PREFIX.pack(_MAGIC, len(head), len(frame.copies)), head, frame.copies, frame.pickle))


def is_framed(stream: bytes | memoryview) -> bool:
    """Whether a stream has a frame."""
    return stream[: len(_MAGIC)] == _MAGIC


def unframed(stream: bytes | memoryview) -> Frame:
    """Take a framed stream apart; raises ValueError or struct.error if it is damaged."""
    _, head_size, copies_size = _PREFIX.unpack_from(stream)
    at = _PREFIX.size
    head = json.loads(bytes(stream[at : at + head_size]))
    if not isinstance(head, dict):
        raise TypeError("the head of a stream is no mapping")
    at += head_size
    return Frame(head, stream[at : at + copies_size], stream[at + copies_size :])
