"""Recorded reads: the files, names and other state that a step reads in addition to its inputs.

Before a value is reused, every recorded read is checked against the present state.

``recorder``     the recorder of the reads of one step: noted while the step runs, digested at its end
``hooks``        the hooks that notify the recorder: audit events, threads, the environment, and wrapped native readers
``readers``      the table of native readers, and of functions that start programs and processes
``checks``       the state of files and folders, and the check that a read still holds
"""

from stepwell.kernel_runtime.reads.checks import file_digest as file_digest
from stepwell.kernel_runtime.reads.checks import read_holds as read_holds
from stepwell.kernel_runtime.reads.checks import what_changed as what_changed
from stepwell.kernel_runtime.reads.hooks import watch as watch
from stepwell.kernel_runtime.reads.recorder import ReadRecorder as ReadRecorder
from stepwell.kernel_runtime.reads.recorder import active as active
