"""``docker compose up``, and containers that share the node's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support.ports import free_address
from support.prometheus import Prometheus, QueryError

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.docker import Engine

    from .conftest import Client, Node

_DEADLINE_S = 60.0
PROMETHEUS_IMAGE = "forebay-test-prometheus"
READ = [f"s3://bucket/read/{number}" for number in range(20)]
REREAD = [f"s3://bucket/reread/{number}" for number in range(40)]


@pytest.fixture(scope="module")
def node(compose: str, start_node: Callable[..., Node]) -> Node:
    """A node that tests share, with a bucket."""
    started = start_node(compose)
    started.s3.create_bucket(Bucket="bucket")
    return started


def test_demo_trains_through_the_daemon(node: Node) -> None:
    node.project.options += ["--profile", "demo"]

    node.project.run("up", "-d", "trainer")
    container = node.project.run("ps", "-a", "-q", "trainer").strip()
    node.project.engine.run("wait", container)

    log = node.project.run("logs", "trainer")
    assert node.project.engine.inspect(container)["State"]["ExitCode"] == 0, log
    assert "uid 20000 wrote s3://demo/checkpoints/last.pth" in log
    found = node.s3.get_object(Bucket="demo", Key="checkpoints/last.pth")["Body"].read()
    assert found == b"state" * 1_000_000


def test_other_uid_reads_the_folder_and_writes_a_checkpoint(node: Node) -> None:
    with node.sharing(uid=20001) as trainer, node.sharing("ro", uid=20002) as reader:
        assert trainer.call("who") == {"pid": 1, "uid": 20001, "gid": 10423}
        assert reader.call("who") == {"pid": 1, "uid": 20002, "gid": 10423}
        assert stats(node)["pid"] == 1
        trainer.call("put", READ, 100_000)
        trainer.call("evict", READ)

        first = trainer.call("digests", READ)
        assert reader.call("digests", READ) == first
        node.project.run("stop", "forebay")  # nobody is there who could send a byte
        assert reader.call("digests", READ) == first
        assert trainer.call("digests", READ) == first
        node.project.run("start", "forebay")
        node.project.wait_for_health("forebay")
        assert stats(node)["total"]["hits"] >= 60

        written = trainer.call("write", "s3://bucket/checkpoint.pth", 30_000_000)
    found = node.s3.get_object(Bucket="bucket", Key="checkpoint.pth")["Body"].read()
    assert hashlib.md5(found, usedforsecurity=False).hexdigest() == written


def test_reads_go_on_while_the_daemon_restarts(node: Node) -> None:
    with node.sharing() as writer, node.sharing() as reader, node.sharing() as cold:
        writer.call("put", REREAD, 100_000)
        expected = writer.call("digests", REREAD)
        reader.call("start_reading", REREAD)

        for number in range(3):
            writer.call("evict", REREAD[number : number + 1])
            node.project.run("restart", "-t", "30", "forebay")
            assert cold.call("digests", REREAD) == expected
            wait_for_reads(reader, 80)

        assert reader.call("stop_reading") == []
    node.project.wait_for_health("forebay")


def test_down_leaves_nothing(compose: str, start_node: Callable[..., Node]) -> None:
    node = start_node(compose)
    node.s3.create_bucket(Bucket="bucket")
    engine = node.project.engine
    with node.sharing() as client:
        client.call("put", READ[:5], 100_000)
    daemon = node.project.container("forebay")

    node.project.run("stop", "forebay")
    state = engine.inspect(daemon)["State"]
    assert (state["ExitCode"], state["OOMKilled"]) == (0, False), node.project.run("logs")
    assert len(node.s3.list_objects_v2(Bucket="bucket")["Contents"]) == 5

    node.project.run("down", "--volumes")
    of_project = f"label=com.docker.compose.project={node.project.name}"
    for kind in ("container", "volume", "network"):
        assert engine.run(kind, "ls", "-q", "--filter", of_project) == ""


def stats(node: Node) -> dict[str, Any]:
    told = node.project.run("exec", "-T", "forebay", "forebay", "stats", "--json")
    found: dict[str, Any] = json.loads(told)
    return found


def wait_for_reads(client: Client, count: int) -> None:
    """Return once so many more reads are done."""
    target = client.call("count") + count
    deadline = time.monotonic() + _DEADLINE_S
    while client.call("count") < target:
        assert time.monotonic() < deadline, "no reads"
        time.sleep(0.05)


def test_prometheus_finds_the_daemon(
    engine: Engine, compose: str, start_node: Callable[..., Node]
) -> None:
    engine.build(PROMETHEUS_IMAGE, str(Path(__file__).with_name("prometheus")))
    listen = free_address()
    node = start_node(
        compose,
        FOREBAY_METRICS_LISTEN="127.0.0.1:9423",  # as prometheus.yml says
        PROMETHEUS_IMAGE=PROMETHEUS_IMAGE,
        PROMETHEUS_LISTEN=listen,
    )
    node.project.options += ["--profile", "observe"]

    node.project.run("up", "-d", "prometheus")

    prometheus = Prometheus(listen)
    deadline = time.monotonic() + _DEADLINE_S
    while up(prometheus) != [1.0]:
        assert time.monotonic() < deadline, node.project.run("logs", "prometheus")
        time.sleep(0.2)
    assert {rule["health"] for rule in prometheus.rules()} <= {"ok", "unknown"}
    assert prometheus.rules()


def up(prometheus: Prometheus) -> list[float]:
    """Return whether each daemon is there; nothing while Prometheus is not."""
    with contextlib.suppress(OSError, QueryError):  # it answers 503 until it is ready
        return [value for _, value in prometheus.query('up{job="forebay"}')]
    return []
