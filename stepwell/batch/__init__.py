"""Batch: a notebook run from its first cell to its last without a front end, and the command line.

=================  =====================================================================================
``command_line``   reads the arguments of every command, calls it here or in a kernel, and turns errors into exit codes
``run``            the command ``run``: executes one notebook, and reports what that came to
``client``         nbclient's client, with what a front end adds
``notebooks``      notebooks as files: reading, parameters, the kernel, saving
``terminal``       what is printed: results, messages, progress; exit codes
=================  =====================================================================================
"""
