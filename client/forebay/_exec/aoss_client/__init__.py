"""Stands in for the SDK of this name under ``forebay exec``."""

from forebay import __version__

__all__ = ["__version__"]
