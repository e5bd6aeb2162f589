"""What ``forebay doctor`` finds: one line for a person, one object for a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

_NO_CURE = "see docs/troubleshooting.md"

Level = Literal["ok", "skipped", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str  # what was looked at
    level: Level
    found: str
    todo: str = ""  # what to do about it; of a warning or problem only


def ok(check: str, found: str) -> Finding:
    return Finding(check, "ok", found)


def skipped(check: str, why: str) -> Finding:
    return Finding(check, "skipped", why)


def warning(check: str, found: str, todo: str) -> Finding:
    return Finding(check, "warning", found, todo)


def problem(check: str, found: str, todo: str) -> Finding:
    return Finding(check, "problem", found, todo)


def problem_of(check: str, error: Exception) -> Finding:
    """Return the finding of an error as ours are written: what is wrong, then what to do."""
    found, colon, todo = str(error).rpartition(": ")
    return problem(check, found, todo) if colon else problem(check, todo, _NO_CURE)
