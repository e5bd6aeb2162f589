"""How settings are written: sizes, durations, lists, tables; and the errors for those that are not.

Knows types of fields and texts of errors; knows no setting by name.
"""

from __future__ import annotations

import difflib
import json
import logging
import math
import os
import re
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal, Union, cast, get_args, get_origin, get_type_hints

from forebayd.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

log = logging.getLogger(__name__)

Parser = Callable[[object], object]

_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmgtpe]?)(i?)b?\s*", re.IGNORECASE)
_PREFIXES = "KMGTPE"
_VARIABLE = "FOREBAY_"
_OF_CLIENTS = ("address", "ca", "cache_dir", "path_mapping", "token_file")


def read_toml(path: Path) -> dict[str, object]:
    """Return the file's content. Raises ConfigError, naming the file."""
    try:
        with path.open("rb") as file:
            return cast("dict[str, object]", tomllib.load(file))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}: give --config a file that can be read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error


def environment(words: Mapping[str, Parser]) -> dict[str, object]:
    """Return the words that variables ``FOREBAY_<WORD>`` set; an empty variable sets nothing."""
    values = ((name, os.environ.get(f"{_VARIABLE}{name.upper()}")) for name in words)
    return {name: value for name, value in values if value}


def warn_of_variables(words: Iterable[str]) -> None:
    """Log which variables look like misspelt settings; others are the clients', or Kubernetes'."""
    known = [*words, *_OF_CLIENTS]
    for variable in os.environ:
        name = variable.removeprefix(_VARIABLE).lower()
        if not variable.startswith(_VARIABLE) or name in known:
            continue
        for near in difflib.get_close_matches(name, known, n=1, cutoff=0.8):
            log.warning(
                "%s is no setting and is not looked at: did you mean %s%s?",
                *(variable, _VARIABLE, near.upper()),
            )


def parse(
    table: Mapping[str, object], words: Mapping[str, Parser], source: str
) -> dict[str, object]:
    """Return *table* with its values parsed. Raises ConfigError for unknown words, bad values."""
    check_words(table, words, source)
    parsed: dict[str, object] = {}
    for name, value in table.items():
        try:
            parsed[name] = words[name](value)
        except ValueError as error:  # noqa: PERF203
            raise ConfigError(f"{source}: {name} = {value!r}: {error}") from error
    return parsed


def check_words(table: Mapping[str, object], words: Iterable[str], source: str) -> None:
    """Raise ConfigError for the first word that is not known, naming the nearest."""
    known = sorted(words)
    for name in table:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
            raise ConfigError(f"{source}: unknown setting {name!r}: {hint}")


def table(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} = {value!r}: must be a table")
    return cast("dict[str, object]", value)


def tables(value: object, where: str) -> list[dict[str, object]]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: write each one as a table of its own, [[origin]]")
    return [table(each, where) for each in value]


def parsers(cls: type) -> dict[str, Parser]:
    """Return a parser for each field of a dataclass, by its type and its name's unit.

    Fields that are dataclasses themselves have none: their tables are parsed apart.
    """
    found: dict[str, Parser] = {}
    for name, hint in get_type_hints(cls).items():
        parser = _parser(name, hint)
        if parser is not None:
            found[name] = parser
    return found


def _parser(name: str, hint: object) -> Parser | None:
    if get_origin(hint) in (Union, types.UnionType):  # "X | None": what is not set is left out
        hint = next(each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Literal:
        return _choice(get_args(hint))
    if get_origin(hint) is dict:
        return _mapping
    if get_origin(hint) is tuple:
        return _texts if get_args(hint)[0] is str else None
    if hint is int and name.endswith("_bytes"):
        return size
    return _BY_TYPE.get(hint)


def size(value: object) -> int:
    """Return bytes: 500, "500", "500GB" (powers of 1000), "1.5TiB" (powers of 1024)."""
    if isinstance(value, int) and not isinstance(value, bool):
        count = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            raise ValueError('must be a size such as 1000000, "500GB" or "1.5TiB"')
        number, prefix, binary = match.groups()
        if binary and not prefix:
            raise ValueError('must be a size such as 1000000, "500GB" or "1.5TiB"')
        power = _PREFIXES.index(prefix.upper()) + 1 if prefix else 0
        count = int(Decimal(number) * (1024 if binary else 1000) ** power)
    if count < 1:
        raise ValueError("must be at least 1 byte")
    return count


def _seconds(value: object) -> float:
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("must be a number of seconds")
    if value < 0:
        raise ValueError("must not be negative")
    return float(value)


def _count(value: object) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError("must be a whole number from 1 on")
    return value


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "1", "false", "0"):
        return value.lower() in ("true", "1")
    raise ValueError("must be true or false")


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text that is not empty")
    return value


def _path(value: object) -> Path:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    # Absolute, since the daemon may change its folder, and clients have others.
    return Path(_text(text)).expanduser().absolute()


def _texts(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list of texts")
    return tuple(_text(each) for each in value)


def _mapping(value: object) -> dict[str, str]:
    if isinstance(value, str):
        value = _mapping_of_text(value)
    if not isinstance(value, Mapping) or not all(
        isinstance(each, str) and each for pair in value.items() for each in pair
    ):
        raise ValueError(
            "must be a table of texts; as one text, JSON or FROM=TO,FROM=TO: data/coco/=s3://coco/"
        )
    return dict(value)


def _mapping_of_text(text: str) -> object:
    """Return a mapping as clients take it, too; anything else if it is none."""
    if not text.lstrip().startswith("{"):
        pairs = [pair.strip().partition("=") for pair in text.split(",") if pair.strip()]
        return {prefix: target for prefix, _, target in pairs}
    try:
        return json.loads(text)
    except ValueError:
        return None


def _choice(allowed: tuple[object, ...]) -> Parser:
    def parse_choice(value: object) -> object:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(repr(each) for each in allowed)}")
        return value

    return parse_choice


_BY_TYPE: dict[object, Parser] = {
    float: _seconds,  # every float among the settings is a duration
    int: _count,
    bool: _switch,
    str: _text,
    Path: _path,
}
