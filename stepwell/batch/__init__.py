"""Execution of notebooks without a front end (batch), and the command line ``stepwell``.

=================  =====================================================================================
``command_line``   parses arguments, calls the command in this process or in a kernel, and turns errors into exit codes
``run``            the command ``run``: executes one notebook and prints a report
``client``         the client that executes the cells like a front end: it sends the cell ids and can interrupt a cell
``notebooks``      notebook files: reading, parameters, the choice of the kernel, saving
``terminal``       output of results, messages and progress; the list of exit codes
=================  =====================================================================================
"""
