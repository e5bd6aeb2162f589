"""See ``forebay``."""

from forebay import __version__

version = __version__

__all__ = ["__version__", "version"]
