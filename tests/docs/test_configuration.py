"""``docs/configuration.md`` is what the code says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from forebay._environment import OF_EXEC, VARIABLES
from forebay.cli import cli

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "configuration.md").read_text()


def test_document_is_fresh(tmp_path: Path) -> None:
    written = tmp_path / "configuration.md"
    command = [sys.executable, "-m", "deploy.dev.configuration_docs", str(written)]
    subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # our own
    assert written.read_text() == DOCUMENT, "run `make docs`"


def test_every_option_of_serve_is_a_setting() -> None:
    options = {option.opts[0] for option in cli.commands["serve"].params}
    documented = set(re.findall(r"`(--[a-z-]+)`", DOCUMENT))
    assert options - documented == {"--config", "--log-level"}


def test_every_variable_of_the_client_is_named() -> None:
    sources = [*(ROOT / "client").rglob("*.py"), *(ROOT / "protos").rglob("*.py")]
    used = {
        name
        for source in sources
        for name in re.findall(r"""["'](FOREBAY_[A-Z0-9_]+)["']""", source.read_text())
    }
    assert used == {*VARIABLES, *OF_EXEC}
    assert [name for name in VARIABLES if f"`{name}`" not in DOCUMENT] == []
