"""Recorded reads: what a step reads in addition to its inputs, and the check that a read still holds before a value is reused.

``recorder``     what one step read, noted while it runs and digested when it has ended
``hooks``        the sources of these notes: audit events, threads, the environment, and wrapped readers that open files in C, C++ or Rust
``readers``      the table of those readers, and of functions that start programs and processes, whose reads are not seen
``checks``       the state of files and folders, and the check whether a read still holds
"""

from stepwell.kernel_runtime.reads.checks import file_digest as file_digest
from stepwell.kernel_runtime.reads.checks import read_holds as read_holds
from stepwell.kernel_runtime.reads.checks import what_changed as what_changed
from stepwell.kernel_runtime.reads.hooks import watch as watch
from stepwell.kernel_runtime.reads.recorder import ReadRecorder as ReadRecorder
from stepwell.kernel_runtime.reads.recorder import active as active
