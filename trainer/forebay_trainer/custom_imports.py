"""``custom_imports``: users' modules, and the names of ``mmdet`` where it is not installed.

``from mmdet.models.builder import NECKS`` then gives ours, and a module that a configuration names
as ``mmdet.models.necks.mine`` may lie in a folder ``mmdet`` of the user's, which has just that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_UPSTREAM, _OURS = "mmdet", "forebay_trainer"


def import_custom(
    imports: str | Sequence[str], allow_failed_imports: bool = False, *, folder: str = ""
) -> None:
    """Import modules; those in *folder*, which the configuration is in, and of the current one too.

    A name may end with ``.py``. Raises ImportError, unless failures are allowed.
    """
    names = [imports] if isinstance(imports, str) else list(imports)
    names = [name.removesuffix(".py").replace("/", ".") for name in names]
    for place in (folder, str(Path.cwd())):
        if place and place not in sys.path:
            sys.path.append(place)
    _finder.wanted.update(names)
    stand_in()
    for name in names:
        with contextlib.suppress(*[ImportError] if allow_failed_imports else []):
            importlib.import_module(name)


def stand_in() -> None:
    """Let ``mmdet`` be ours from now on, unless it is installed with mmcv, which it needs."""
    if _finder in sys.meta_path or all(map(_is_installed, (_UPSTREAM, "mmcv"))):
        return
    sys.meta_path.insert(0, _finder)


def _is_installed(name: str) -> bool:
    spec = importlib.util.find_spec(name)
    return spec is not None and spec.origin is not None  # a folder without code has none


class _Finder(MetaPathFinder):
    """Finds ``mmdet.x``: the user's own file if a configuration asks for just that, else our
    module of that name, else a file of the user's that those need.
    """

    def __init__(self) -> None:
        self.wanted: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        head, _, rest = fullname.partition(".")
        if head != _UPSTREAM:
            return None
        ours = f"{_OURS}.{rest}" if rest else _OURS
        users = _users_file(fullname)
        if not (fullname in self.wanted and users) and _is_ours(ours):
            return ModuleSpec(fullname, _Alias(ours))
        return importlib.util.spec_from_file_location(fullname, users) if users else None


class _Alias(Loader):
    """Gives a module of ours under upstream's name: the same module, not a second one."""

    def __init__(self, ours: str) -> None:
        self._ours = ours

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # which importing it under another name has replaced


def _is_ours(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package that it would be in
        return False


def _users_file(fullname: str) -> Path | None:
    relative = fullname.replace(".", "/")
    for folder in sys.path:
        for file in (Path(folder, f"{relative}.py"), Path(folder, relative, "__init__.py")):
            if file.is_file():
                return file
    return None


_finder: Any = _Finder()
