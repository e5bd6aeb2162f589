"""See ``forebay.petrel``."""

from forebay.petrel import Client

__all__ = ["Client"]
