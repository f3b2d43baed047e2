"""The magics, which turn cells into definitions and run commands on the session.

=================  =====================================================================================
``extension``      installs the magics and hooks in a shell (``%load_ext stepwell``) and removes them
``magics``         the magics, ``%stepwell VERB``, and the settings of ``%config Stepwell``
``flags``          the line of a magic: its flags, parsing and completion
``face``           the state that the magics of one kernel share, and the display of runs: lines, progress, output, figures
``cell_source``    compiles a body: transform, parse, check, split, and compile with the line numbers of the cell
``cell_names``     the names that a body may read from outside
``cell_changes``   the names whose objects a body may change in place
``cell_inputs``    the key of a cell's asset, and its inputs: the assets whose names the cell reads
``asset_cells``    ``%%asset``, ``%%multi_asset``, ``%%op``, ``%%sql_asset``
``graph_cells``    ``%%graph_asset``, ``%%graph``, ``%%job``
``running``        runs an asset's cell: registers, materializes, binds the variables, displays, prints one line
=================  =====================================================================================
"""
