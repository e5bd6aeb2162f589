"""How often a test repeats itself: a few times in every run, the full count in a stress run."""

from __future__ import annotations

import pytest


def rounds(name: str, few: int, full: int) -> pytest.MarkDecorator:
    """Run a test with *name* = *few*, and, marked ``stress``, with *name* = *full*."""
    return pytest.mark.parametrize(name, [few, pytest.param(full, marks=pytest.mark.stress)])
