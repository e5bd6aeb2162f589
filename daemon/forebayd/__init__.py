"""The cache daemon of a node."""

__version__ = "0.1.0"
