"""Batch: a notebook run from its first cell to its last without a front end, and the command line.

``command_line`` reads the arguments and turns errors into exit codes; ``commands/`` has a file for each command, ``arguments``
what they share; ``runner`` runs one notebook, with what it needs from
``notebooks`` (reading and saving), ``kernels`` (which one), ``client`` (nbclient's client, taught what Jupyter's front
ends do), ``progress`` (the lines on standard error) and ``report`` (what the store knows of the runs afterwards).
"""
