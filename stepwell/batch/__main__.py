"""``python -m stepwell.batch``: the command ``stepwell``, for environments whose scripts are not on PATH."""

from stepwell.batch.command_line import main

raise SystemExit(main())
