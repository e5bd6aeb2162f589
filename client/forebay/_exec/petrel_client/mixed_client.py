"""See ``forebay.petrel``."""

from forebay.petrel import MixedClient

__all__ = ["MixedClient"]
