"""The classes of errors that Stepwell raises, for use in ``except``: ``from stepwell.errors import UnknownKeyError``."""

from stepwell.kernel_runtime.errors import *  # noqa: F403 - every class of that module is public
