"""Recorded reads: what a step read from the world while it ran, found again before its value is reused.

``recorder``     what one step read, noted and digested; ``hooks`` tells it, by audit events and threads
``files``        what tells whether a file is the same; ``listings`` folders and patterns; ``environment`` names and their keyed digests
``statuses``     what is looked at without being opened: whether a path is there, its size, its times
``native``       readers that open files in C, C++ or Rust, wrapped; ``readers`` the table of them; ``statements`` the files that SQL names
``children``     programs and processes that a step starts, of which nothing is seen
``holding``      whether a read still holds, and what changed in words
"""

from stepwell.kernel_runtime.versions.reads.files import file_digest as file_digest
from stepwell.kernel_runtime.versions.reads.holding import read_holds as read_holds
from stepwell.kernel_runtime.versions.reads.holding import what_changed as what_changed
from stepwell.kernel_runtime.versions.reads.recorder import ReadRecorder as ReadRecorder
from stepwell.kernel_runtime.versions.reads.recorder import active as active
from stepwell.kernel_runtime.versions.reads.recorder import watch as watch
