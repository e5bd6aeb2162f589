"""Configurations: read with their bases from disk or Ceph/S3, and in today's form.

The dialect is MMDetection 2.x's, and mmengine's Config reads it. It reads files, so what is an
object is brought to a folder of its own first, with its bases at the places where it looks for
them; a ``_base_`` folder that is not there is ours, of ``configs/_base_``.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import operator
import os
import posixpath
import re
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from forebay_trainer.custom_imports import import_custom
from forebay_trainer.files import Files
from forebay_trainer.registry import Config, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_SHIPPED = Path(__file__).with_name("configs")
_SUFFIXES = (".py", ".json", ".yaml", ".yml")


class ConfigError(ValueError):
    """A configuration that cannot run; the message names the place in it."""


@contextlib.contextmanager
def errors_at(place: str) -> Iterator[None]:
    """Turn what a part says against its arguments into a ConfigError that names their place."""
    try:
        yield
    except ConfigError:
        raise
    except (AttributeError, AssertionError, LookupError, TypeError, ValueError) as error:
        # A KeyError's own text is in quotes; some have more lines than one, and some none.
        reason = " ".join(" ".join(map(str, error.args)).split()) or type(error).__name__
        raise ConfigError(f"{place}: {reason}") from error


def load_config(path: str | os.PathLike[str], options: Mapping[str, Any] | None = None) -> Config:
    """Return the configuration with its bases, *options* (``{"optimizer.lr": 0.1}``) merged in.

    Its custom imports are done, modules beside the file included. Raises ConfigError.
    """
    name = os.fspath(path)
    with tempfile.TemporaryDirectory(prefix="forebay-config-") as folder:
        staging = _Staging(Path(folder))
        staged = staging.add(name)
        with _errors_as_in(name, staging.names):
            parsed = Config.fromfile(staged, import_custom_modules=False, lazy_import=False)
            config = Config(parsed._cfg_dict.to_dict(), cfg_text=staging.text(), filename=name)
    _merge(config, options)
    config = _with_references(config)
    if config.get("custom_imports"):
        folder = "" if Files().is_object(name) else str(Path(name).resolve().parent)
        try:
            import_custom(**config.custom_imports, folder=folder)
        except (ImportError, TypeError) as error:
            raise ConfigError(f"custom_imports: {error}") from error
    return config


def as_config(config: Any) -> Config:
    """Return our Config of a path, a dict, or a Config of mmengine's or mmcv's; never the same."""
    if isinstance(config, (str, os.PathLike)):
        return load_config(config)
    if isinstance(config, dict):
        return Config(copy.deepcopy(config))
    if not hasattr(config, "_cfg_dict"):
        raise TypeError(f"a configuration is a path, a dict or a Config, not {type(config)}")
    values = copy.deepcopy(config._cfg_dict.to_dict())
    return Config(values, cfg_text=config.text or "", filename=config.filename)


def parse_options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """Return what ``--cfg-options`` and ``--eval-options`` say: KEY=VALUE, as upstream reads it.

    A value is Python's or a name; ``a,b`` is a list, and so is ``[a,b]``, but ``(a,b)`` is a pair.
    """
    options = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not (key and equals):
            raise ConfigError(f"{pair!r}: write KEY=VALUE")
        options[key] = _value(text)
    return options


def _value(text: str) -> Any:
    with contextlib.suppress(ValueError, SyntaxError):
        values = ast.literal_eval(f"[{text}]")  # in which a bare ``1,2`` is a list
        return values[0] if len(values) == 1 else values or text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    brackets = text[:1] + text[-1:]
    inner = text[1:-1] if brackets in ("[]", "()") else text
    if "," in inner and not any(bracket in inner for bracket in "[](){}"):
        values = [_value(part.strip()) for part in inner.split(",")]
        return tuple(values) if brackets == "()" else values
    return text


def _merge(config: Config, options: Mapping[str, Any] | None) -> None:
    try:
        config.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, IndexError, AssertionError) as error:
        raise ConfigError(f"--cfg-options {dict(options or {})}: {error}") from error


class _Staging:
    """A folder that mirrors the places of a configuration and its bases."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = Files()
        self.names: dict[str, str] = {}  # of the copies: what they are copies of, bases first
        self._sources: dict[str, str] = {}

    def add(self, name: str) -> str:
        """Copy a file and all its bases; return the copy's path."""
        suffix = posixpath.splitext(name)[1]
        if suffix not in _SUFFIXES:
            raise ConfigError(f"{name}: a configuration ends with {', '.join(_SUFFIXES)}")
        place = name if self._is_uri(name) else str(Path(name).expanduser().absolute())
        copy_path = self._root / place.replace("://", "/").lstrip("/")
        if str(copy_path) in self.names:
            return str(copy_path)
        source = self._read(name)
        # mmengine would put the copy's place in.
        for key, value in _predefined(place).items():
            source = re.sub(r"\{\{\s*" + key + r"\s*\}\}", value.replace("\\", "/"), source)
        copy_path.parent.mkdir(parents=True, exist_ok=True)
        copy_path.write_text(source)
        for base in _bases(name, source, suffix):
            self.add(self._place_of(base, name))
        self.names[str(copy_path)] = name
        self._sources[place] = source
        return str(copy_path)

    def text(self) -> str:
        """Return all sources, each after a line with its place, as mmcv's Config has them."""
        return "\n".join(f"{place}\n{source}" for place, source in self._sources.items())

    def _place_of(self, base: str, user: str) -> str:
        if self._is_uri(base) or posixpath.isabs(base):
            return base
        scheme, mark, rest = user.rpartition("://")
        folder = posixpath.dirname(rest)
        return scheme + mark + posixpath.normpath(posixpath.join(folder, base))

    def _read(self, name: str) -> str:
        try:
            return self._files.get(name).decode()
        except (FileNotFoundError, IsADirectoryError):
            _, mark, shipped = f"/{name}".rpartition("/_base_/")
            ours = _SHIPPED / "_base_" / shipped
            if mark and ours.is_file():
                return ours.read_text()
            raise ConfigError(f"{name}: there is no such configuration") from None

    @staticmethod
    def _is_uri(name: str) -> bool:
        return "://" in name


def _predefined(place: str) -> dict[str, str]:
    folder, base = posixpath.split(place)
    stem, suffix = posixpath.splitext(base)
    return {
        "fileDirname": folder,
        "fileBasenameNoExtension": stem,
        "fileBasename": base,
        "fileExtname": suffix,
    }


def _bases(name: str, source: str, suffix: str) -> list[str]:
    """Return what ``_base_`` names."""
    found: Any = []
    if suffix == ".py":
        # As mmengine, before it parses: what is in braces may stand where Python has none.
        plain = re.sub(r"\{\{.*?\}\}", "None", source)
        try:
            tree = ast.parse(plain, name)
        except SyntaxError as error:
            raise ConfigError(f"{name}:{error.lineno}: {error.msg}") from error
        for node in tree.body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_base_":
                try:
                    found = ast.literal_eval(node.value)
                except ValueError as error:
                    raise ConfigError(f"{name}:{node.lineno}: _base_ names files") from error
    else:
        try:
            found = (yaml.safe_load(source) or {}).get("_base_", [])
        except yaml.YAMLError as error:
            raise ConfigError(f"{name}: {error}") from error
    return [found] if isinstance(found, str) else list(found)


@contextlib.contextmanager
def _errors_as_in(name: str, names: Mapping[str, str]) -> Iterator[None]:
    """Turn what fails in a configuration's own code into one line that names its place."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    except Exception as error:
        place = name
        for frame in traceback.extract_tb(sys.exc_info()[2]):
            if frame.filename in names:
                place = f"{names[frame.filename]}:{frame.lineno}"
        with warnings.catch_warnings():  # mmengine has left a file open
            warnings.simplefilter("ignore", ResourceWarning)
            traceback.clear_frames(error.__traceback__)
        raise ConfigError(f"{place}: {type(error).__name__}: {error}") from error


def _with_references(config: Config) -> Config:
    """Replace ``${key.other}`` in texts by the value of that key, as upstream's tools do."""
    pattern = re.compile(r"\$\{([\w.]+)\}")

    def value_of(key: str) -> Any:
        try:
            return functools.reduce(operator.getitem, key.split("."), config)
        except (KeyError, TypeError):
            raise ConfigError(f"${{{key}}}: there is no such key") from None

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(replaced(inner) for inner in value)
        if not isinstance(value, str):
            return value
        whole = pattern.fullmatch(value)
        if whole:
            return value_of(whole[1])
        return pattern.sub(lambda match: str(value_of(match[1])), value)

    if not pattern.search(config.text or ""):
        return config
    values = replaced(config._cfg_dict.to_dict())
    return Config(values, cfg_text=config.text, filename=config.filename)


def plain(value: Any) -> Any:
    """Return a value of a configuration in Python's own dicts and lists."""
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def normalized(config: Config) -> Config:
    """Return a copy in the form that the rest reads: with ``runner``, with ``data.*_dataloader``,
    without the keys that those replaced, and with the defaults of what may be left out.
    """
    config = as_config(config)
    if "runner" not in config:
        if "total_epochs" not in config:
            raise ConfigError("runner: give runner=dict(type='EpochBasedRunner', max_epochs=...)")
        config.runner = ConfigDict(type="EpochBasedRunner", max_epochs=config.total_epochs)
    elif config.get("total_epochs", config.runner.get("max_epochs")) != config.runner.get(
        "max_epochs"
    ):
        raise ConfigError(
            f"total_epochs is {config.total_epochs}, but runner.max_epochs "
            f"{config.runner.get('max_epochs')}: give one of them"
        )
    _normalize_data(config.get("data") or ConfigDict())
    for key, default in _DEFAULTS.items():
        if config.get(key) is None:
            config[key] = copy.deepcopy(default)
    return config


_DEFAULTS: dict[str, Any] = {
    "workflow": [("train", 1)],
    "optimizer_config": {},
    "log_config": {"interval": 50, "hooks": [{"type": "TextLoggerHook"}]},
    "custom_hooks": [],
    "log_level": "INFO",
}


def _normalize_data(data: ConfigDict) -> None:
    loaders = {
        split: data.setdefault(f"{split}_dataloader", ConfigDict())
        for split in ("train", "val", "test")
    }
    if "imgs_per_gpu" in data:
        data.samples_per_gpu = data.pop("imgs_per_gpu")
    for key, splits in (
        ("samples_per_gpu", ("train",)),
        ("persistent_workers", ("train",)),
        ("workers_per_gpu", ("train", "val", "test")),
    ):
        if key in data:
            value = data.pop(key)
            for split in splits:
                loaders[split].setdefault(key, value)
    for split in ("val", "test"):
        for each in _listed(data.get(split)):
            if "samples_per_gpu" in each:
                samples = each.pop("samples_per_gpu")
                loaders[split].samples_per_gpu = max(
                    samples, loaders[split].get("samples_per_gpu", 1)
                )


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
