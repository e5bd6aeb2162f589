"""What a run has to log: the values of the last batches, and what is to be written next."""

from __future__ import annotations

from typing import Any

_KEPT = 10_000  # batches; no logger averages over more


class LogBuffer:
    """Gathers values batch by batch; ``output`` has what a logger writes when ``ready``."""

    def __init__(self) -> None:
        self._history: dict[str, list[tuple[float, int]]] = {}  # (value, samples) by name
        self.output: dict[str, Any] = {}
        self.ready = False

    def update(self, values: dict[str, float], samples: int = 1) -> None:
        for name, value in values.items():
            history = self._history.setdefault(name, [])
            history.append((value, samples))
            if len(history) > 2 * _KEPT:
                del history[:-_KEPT]

    def average(self, count: int = 0) -> None:
        """Put the means of the last *count* values, or of all, into ``output``."""
        for name, history in self._history.items():
            latest = history[-count:]
            samples = sum(number for _, number in latest)
            self.output[name] = sum(value * number for value, number in latest) / samples
        self.ready = True

    def latest(self, name: str) -> float | None:
        """Return the value of the last batch, if it had one of that name."""
        history = self._history.get(name)
        return history[-1][0] if history else None

    def clear(self) -> None:
        self._history.clear()
        self.clear_output()

    def clear_output(self) -> None:
        self.output.clear()
        self.ready = False

    def history(self) -> dict[str, list[tuple[float, int]]]:
        """Return the values since the last ``clear``, for a checkpoint."""
        return {name: list(values) for name, values in self._history.items()}

    def load(self, history: dict[str, list[tuple[float, int]]]) -> None:
        self._history = {name: list(values) for name, values in history.items()}
