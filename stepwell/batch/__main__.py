"""``python -m stepwell.batch`` runs the command line ``stepwell`` in environments whose scripts are not on PATH."""

from stepwell.batch.command_line import main

raise SystemExit(main())
