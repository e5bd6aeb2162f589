"""Doing something once a module is imported. Imports nothing.

``forebay exec`` runs this file at the start of every Python below it, so it must cost nothing:
``typing`` alone takes some ms.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


class _Finder:
    """Lets others find the modules that are waited for, and acts after they were executed."""

    def __init__(self) -> None:
        self.actions: dict[str, list[Callable[[], object]]] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return self._acting(name, spec)
        return None

    def _acting(self, name: str, spec: ModuleSpec) -> ModuleSpec | None:
        loader = spec.loader
        if loader is None:
            return None
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            for action in self.actions[name]:  # again when it is reloaded
                action()

        # On the instance: whoever asks the loader for its kind or the source finds what was there.
        loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


_finder = _Finder()


def when_imported(name: str, action: Callable[[], object]) -> None:
    """Call *action* now if the module is imported, and each time that it is."""
    if name in sys.modules:
        action()
    _finder.actions.setdefault(name, []).append(action)
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
