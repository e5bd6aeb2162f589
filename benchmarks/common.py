"""What the benchmarks share: rounds side by side, medians, results with machine and commit."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Describe the machine by what matters to a number."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(pages * page / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit, with "+" if the working tree differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    found = subprocess.run(  # noqa: S603  # nothing of a user's
        [*git, "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def report(name: str, result: Mapping[str, Any]) -> None:
    """Print a result and keep it in ``results/<name>.json``."""
    kept = {
        "benchmark": name,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "result": dict(result),
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    print(json.dumps(kept["result"], indent=1))


def side_by_side(works: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Run each of *works* in turn, *rounds* times after one for warming up; they return seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            taken = work()
            if number:
                seconds[name].append(taken)
    return seconds


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the rounds' ratios: what disturbs one round disturbs both sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def compare(
    works: Mapping[str, Callable[[], float]], rounds: int, *, per: int, base: str = "files"
) -> dict[str, Any]:
    """Return the medians in microseconds per object, the ratios to *base*, and the raw rounds."""
    seconds = side_by_side(works, rounds)
    result: dict[str, Any] = {}
    for name, taken in seconds.items():
        result[f"{name}_us"] = round(statistics.median(taken) / per * 1e6, 3)
        if name != base:
            result[f"{name}_ratio"] = round(median_ratio(taken, seconds[base]), 3)
    result["rounds_us"] = {
        name: [round(value / per * 1e6, 3) for value in taken] for name, taken in seconds.items()
    }
    return result
