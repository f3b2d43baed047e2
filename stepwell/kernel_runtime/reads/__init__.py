"""Recorded reads: the files, variables and other state that a step reads in addition to its inputs.

Before a stored result is reused, each of its recorded reads is compared with the present state.

``recorder``     `ReadRecorder`: notes what one step reads while the step runs, and computes the digests when the step ends
``hooks``        the hooks that report reads to the recorder: audit events, threads, the environment, and wrapped native readers
``readers``      the table of native readers (functions that open files without an audit event), and of functions that start programs and
                 processes
``checks``       the state of files and folders, and the check that a recorded read still holds
"""

from stepwell.kernel_runtime.reads.checks import file_digest as file_digest
from stepwell.kernel_runtime.reads.checks import read_holds as read_holds
from stepwell.kernel_runtime.reads.checks import what_changed as what_changed
from stepwell.kernel_runtime.reads.hooks import watch as watch
from stepwell.kernel_runtime.reads.recorder import ReadRecorder as ReadRecorder
from stepwell.kernel_runtime.reads.recorder import active as active
