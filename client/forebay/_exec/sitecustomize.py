"""Python runs this at its start below ``forebay exec``: plugs in as frameworks are imported.

It imports nothing by itself, since every Python of the program pays for it.
"""

from __future__ import annotations

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _install() -> None:
    path = os.path.dirname(_HERE) + "/_imports.py"
    imports = {"__name__": "forebay_imports", "__file__": path}
    with open(path, encoding="utf-8") as file:
        exec(compile(file.read(), path, "exec"), imports)  # noqa: S102  # ours
    when_imported = imports["when_imported"]
    assert callable(when_imported)  # noqa: S101
    when_imported("mmcv.fileio.file_client", lambda: _plug("forebay.mmcv"))
    when_imported("mmengine.fileio.file_client", lambda: _plug("forebay.mmengine"))
    if os.environ.get("FOREBAY_EXEC_S3"):
        when_imported("fsspec.registry", _replace_s3)


def _plug(name: str) -> None:
    import importlib

    loaded = sys.modules.get(name)
    if loaded is not None and not hasattr(loaded, "register"):
        return  # it is being imported, imports the framework itself, and goes on
    try:
        # Its classes are made of the framework's: of a reloaded one, anew.
        importlib.reload(loaded) if loaded else importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "forebay":
            raise
        print(f"forebay exec: {sys.executable} has no package forebay", file=sys.stderr)


def _replace_s3() -> None:
    from fsspec.registry import register_implementation

    for protocol in ("s3", "s3a"):
        register_implementation(protocol, "forebay.fsspec.ForebayS3FileSystem", clobber=True)


def _run_the_hidden_one() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    rest = [path for path in sys.path if os.path.abspath(path or os.curdir) != _HERE]
    for finder in sys.meta_path:
        spec = getattr(finder, "find_spec", lambda *_: None)("sitecustomize", rest)
        if spec is not None and spec.loader is not None:
            module = type(sys)("sitecustomize")
            module.__spec__, module.__file__ = spec, spec.origin
            spec.loader.exec_module(module)
            return


_install()
_run_the_hidden_one()
