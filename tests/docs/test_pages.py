"""The pages below ``docs``: links lead somewhere, messages are the code's, commands and snippets
work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from forebay.cli import cli

if TYPE_CHECKING:
    from support.daemon import DaemonProcess

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
STARTED = (ROOT / "docs" / "getting_started.md").read_text()
TROUBLE = (ROOT / "docs" / "troubleshooting.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", STARTED, re.DOTALL | re.MULTILINE)
WITH_COMMANDS = [
    "cli.md",
    "getting_started.md",
    "metrics.md",
    "operating.md",
    "troubleshooting.md",
]
MESSAGES = [
    message
    for line in re.findall(r"^### (.*)$", TROUBLE, re.M)
    for message in line.split("`")[1::2]
]


def _source() -> str:
    """Return the code's text as messages are seen: without quotes at the ends of its lines."""
    files = [
        path for part in ("client", "daemon", "protos") for path in (ROOT / part).rglob("*.py")
    ]
    text = "\n".join(path.read_text() for path in files)
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    lost = []
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text()):
        found = page.parent / target if target else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            lost.append(f"{target}#{anchor}")
    assert lost == []


def _anchors(page: Path) -> list[str]:
    """Return what its headings are called in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


def test_quoted_messages_are_those_of_the_code() -> None:
    source = _source()
    parts = [part for message in MESSAGES for part in message.split("…") if part.strip()]
    assert len(parts) > 10
    assert [part for part in parts if part.strip() not in source] == []


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_commands_and_options_are_there(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    used = re.findall(r"\bforebay (?!forebay)([a-z]+)\b([^`\n]*)", text)
    unknown = [name for name, _ in used if name not in cli.commands]
    for name, rest in used:
        command = cli.commands.get(name, cli)
        known = {option for param in command.params for option in param.opts}
        own = rest.partition(" -- ")[0]
        unknown += [
            option for option in re.findall(r" (--?[a-z][a-z-]*)", own) if option not in known
        ]
    assert len(used) > 3
    assert unknown == []


@pytest.mark.usefixtures("datasets_bucket")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_first_steps_work(
    snippet: str, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)

    exec(compile(snippet, "getting_started.md", "exec"), {"__name__": "page"})  # noqa: S102  # ours
