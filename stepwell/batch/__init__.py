"""Execution of notebooks without a front end (batch), and the command line.

=================  =====================================================================================
``command_line``   parses arguments, calls the command in this process or in a kernel, and turns errors into exit codes
``run``            the command ``run``: executes one notebook and prints a report
``client``         a client of nbclient that also does what front ends do: cell ids, joined streams, interrupts
``notebooks``      notebooks as files: reading, parameters, the choice of the kernel, saving
``terminal``       output: results, messages and progress; the list of exit codes
=================  =====================================================================================
"""
