"""Writes ``docs/configuration.md`` from the definitions of the settings: ``make docs``."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from forebay._environment import VARIABLES
from forebay.cli import cli
from forebayd import config, settings

_HEAD = """\
# Configuration

*Written by `make docs` from the definitions in the code; change them there.*

A setting is a word of the TOML file that `forebay serve --config` names, a variable
`FOREBAY_<WORD>`, and for some words an option of `forebay serve`. Options win over variables,
variables over the file. An unknown word is an error that names the nearest. Sizes are numbers of
bytes or texts such as "500GB" (powers of 1000) or "1.5TiB" (powers of 1024); durations are seconds.

```toml
max_bytes = "1.5TiB"

[[origin]]
prefix = "s3://datasets/"
endpoint_url = "http://ceph:7480"
credentials = { profile = "datasets" }
```
"""
_ORIGINS = """\
## Origins

Words of an `[[origin]]`, of which there may be several: the longest prefix of whole components
serves a URI. All but {own} may also stand outside of it, in a variable or in an option,
for every origin that lacks them. Without any, the daemon serves `s3://` and, only to be read,
`http://`, `https://`, `file://` (by unix sockets) and whatever else fsspec knows.
"""
_CREDENTIALS = """\
## Credentials

Words of an origin's table `credentials`; `profile` may also stand outside of it, as a variable too.
Without any, keys come from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` (`AWS_SESSION_TOKEN`),
else from where AWS programs look: `AWS_PROFILE`, `~/.aws`, roles. Keys themselves are no setting.
"""
_CLIENT = """\
## Clients

A client is configured by its arguments, and by variables where an argument is not given.

| variable | meaning |
|---|---|
"""
_COLUMNS = "| word | type | default | option | meaning |\n|---|---|---|---|---|\n"


def text() -> str:
    """Return the document."""
    own = " and ".join(f"`{name}`" for name in ("prefix", "account"))
    return (
        "\n".join(
            [
                _HEAD,
                "## The daemon\n",
                _table(config.DaemonConfig),
                _ORIGINS.format(own=own),
                _table(config.OriginConfig),
                _CREDENTIALS,
                _table(config.CredentialsConfig),
                _CLIENT + "".join(f"| `{name}` | {told} |\n" for name, told in VARIABLES.items()),
            ]
        ).rstrip("\n")
        + "\n"
    )


def _table(cls: type[Any]) -> str:
    hints = get_type_hints(cls, include_extras=True)
    words = settings.parsers(cls)
    rows = [
        _row(field, hints[field.name]) for field in dataclasses.fields(cls) if field.name in words
    ]
    return _COLUMNS + "".join(rows)


def _row(field: dataclasses.Field[Any], hint: Any) -> str:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"{field.name} does not say what it means: write Annotated[…, meaning]")
    kind, meaning = get_args(hint)
    told = [f"`{field.name}`", _kind(field.name, kind), _default(field), _option(field.name)]
    return f"| {' | '.join(told)} | {meaning} |\n"


def _kind(name: str, hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (each for each in get_args(hint) if each is not type(None))
    if get_origin(hint) is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(hint))
    if hint is int:
        return "size" if name.endswith("_bytes") else "count"
    return {
        float: "seconds",
        bool: "true, false",
        str: "text",
        Path: "path",
        tuple: "texts",
        dict: "table",
    }[get_origin(hint) or hint]


def _default(field: dataclasses.Field[Any]) -> str:
    value = field.default
    if value is None or value is dataclasses.MISSING:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and field.name.endswith("_bytes"):
        return _size(value)
    return f'"{value}"' if isinstance(value, str) else f"{value:g}"


def _size(size_bytes: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB")):
        if size_bytes % (1 << power) == 0:
            return f'"{size_bytes >> power}{unit}"'
    return str(size_bytes)


def _option(name: str) -> str:
    options = {option.name: option.opts[0] for option in cli.commands["serve"].params}
    return f"`{options[name]}`" if name in options else ""


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(text())
