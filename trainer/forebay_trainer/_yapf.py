"""Imports yapf, which mmengine imports, while other processes may do so for the first time.

yapf (0.43) gives its cache a name before it is written to the end: of processes that begin together
in a new environment, as torchrun's do, one may read a part of it and fail.
"""

from __future__ import annotations

import importlib
import pickle
import time

_TRIES, _PAUSE_S = 300, 0.1

for _left in reversed(range(_TRIES)):
    try:
        importlib.import_module("yapf")
        break
    except (EOFError, pickle.UnpicklingError):
        if not _left:
            raise
        time.sleep(_PAUSE_S)
