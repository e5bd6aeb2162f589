"""A daemon of its own for a whole module of tests, with a folder that goes with it."""

from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from support.daemon import DaemonProcess

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@contextlib.contextmanager
def serving(
    *,
    endpoint_url: str | None = None,
    max_bytes: int | str = "1GB",
    config: str | None = None,
    env: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
    **settings: object,
) -> Iterator[DaemonProcess]:
    """Run a daemon; *settings* are words of the configuration, *config* the text of a TOML file."""
    with tempfile.TemporaryDirectory(prefix="fb-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        flags = [*arguments, "--max-bytes", str(max_bytes)]
        if endpoint_url is not None:
            flags += ["--endpoint-url", endpoint_url]
        if config is not None:
            config_file = folder / "forebay.toml"
            config_file.write_text(config)
            flags += ["--config", str(config_file)]
        words = {
            f"FOREBAY_{word.upper()}": json.dumps(value) if isinstance(value, dict) else str(value)
            for word, value in settings.items()
        }
        daemon = DaemonProcess(
            cache_dir=folder / "cache",
            address=f"unix:{folder}/sock",
            log_file=folder / "daemon.log",
            arguments=tuple(flags),
            env={**words, **(env or {})},
        )
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.kill9()
