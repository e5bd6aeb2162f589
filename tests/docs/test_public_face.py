"""What the documents promise: snippets run, commands have help and are named, stubs are fresh."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from google.protobuf import descriptor_pb2

import forebay
from forebay.cli import cli
from forebay_protos import cache_pb2, cache_pb2_grpc

if TYPE_CHECKING:
    from support.daemon import DaemonProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS_PAGE = (ROOT / "docs" / "cli.md").read_text()
SNIPPETS = [
    "\n" * README[: match.start(1)].count("\n") + match[1]  # so that tracebacks name the right line
    for match in re.finditer(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
]
COMMANDS = sorted(cli.commands)


@pytest.mark.usefixtures("datasets_bucket")
@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_readme_snippet_runs(
    snippet: str, daemon: DaemonProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FOREBAY_ADDRESS", daemon.address)

    exec(compile(snippet, "README.md", "exec"), {"__name__": "readme"})  # noqa: S102  # ours


def test_readme_reaches_the_first_hit_by_line_30() -> None:
    line = next(number for number, text in enumerate(README.splitlines(), 1) if ".get(" in text)
    assert line <= 30


def test_readme_links_lead_somewhere() -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_help_with_an_example_and_is_documented(name: str) -> None:
    command = cli.commands[name]
    text = command.get_help(click.Context(command, info_name=name))

    assert "Example:" in text
    assert f"forebay {name}" in text.partition("Example:")[2]
    assert f"`forebay {name}" in README
    assert f"`forebay {name}`" in COMMANDS_PAGE


def test_public_names_are_sorted_and_exist() -> None:
    assert list(forebay.__all__) == sorted(forebay.__all__)
    assert [name for name in forebay.__all__ if not hasattr(forebay, name)] == []


def test_stubs_are_those_of_the_proto_file(tmp_path: Path) -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]  # ships no stubs

    compiled = tmp_path / "cache.bin"
    protos = ROOT / "protos"
    source = "forebay_protos/cache.proto"

    assert protoc.main(["", f"-I{protos}", f"--descriptor_set_out={compiled}", source]) == 0

    (wanted,) = descriptor_pb2.FileDescriptorSet.FromString(compiled.read_bytes()).file
    for message in wanted.message_type:
        for field in message.field:
            field.ClearField("json_name")  # which protoc adds here, and not to the stubs
    stubs = descriptor_pb2.FileDescriptorProto()
    cache_pb2.DESCRIPTOR.CopyToProto(stubs)
    assert stubs == wanted, "run `make protos`"
    (service,) = wanted.service
    types = (protos / "forebay_protos" / "cache_pb2.pyi").read_text()
    stub_types = (protos / "forebay_protos" / "cache_pb2_grpc.pyi").read_text()
    assert [m.name for m in wanted.message_type if f"class {m.name}(" not in types] == []
    methods = [method.name for method in service.method]
    assert [name for name in methods if not hasattr(cache_pb2_grpc.CacheServicer, name)] == []
    assert [name for name in methods if f"    {name}: grpc." not in stub_types] == []
