"""Dashboard and alerts: a real Prometheus runs every query against real daemons."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import re
import shutil
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families

import forebay
from forebay_protos import layout
from support.ports import closed_port, free_address
from support.prometheus import (
    Prometheus,
    missing_binaries,
    promtool,
    running_prometheus,
)
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conftest import StartDaemon
    from support.ceph import Bucket
    from support.proxy import FaultProxy

Found = TypeVar("Found")

ROOT = Path(__file__).parents[2]
OBSERVE = ROOT / "deploy" / "observe"
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD: dict[str, Any] = json.loads(
    (OBSERVE / "grafana" / "dashboards" / "forebay.json").read_text()
)
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
ALERTS = re.findall(r"- alert: (\w+)", (OBSERVE / "alerts.yml").read_text())
SETTLE_S = 60.0  # it takes some five scrapes, one a second, on a machine that is not busy
LARGE = 1_500_000  # beyond packing_limit_bytes: a file of its own

needs_prometheus = pytest.mark.skipif(
    bool(missing_binaries()), reason="there is no Prometheus: apt-get install prometheus"
)


@contextlib.contextmanager
def watched(folder: Path, *addresses: str) -> Iterator[Prometheus]:
    """Run Prometheus as it is deployed, but with these daemons and a look at them every second."""
    config = (OBSERVE / "prometheus.yml").read_text()
    assert "127.0.0.1:9423" in config
    assert "15s" in config
    targets = '", "'.join(addresses)
    config_file = folder / "prometheus.yml"
    config_file.write_text(config.replace("127.0.0.1:9423", targets).replace("15s", "1s"))
    shutil.copy(OBSERVE / "alerts.yml", folder)
    with running_prometheus(config_file, folder / "prometheus") as prometheus:
        yield prometheus


def settled(look: Callable[[], Found], wanted: Found) -> Found:
    """Return what *look* finds once it is *wanted*; after some time, what it finds instead."""
    deadline = time.monotonic() + SETTLE_S
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def metrics_text(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics") as reply:
        text: str = reply.read().decode()
        return text


# --- files ---------------------------------------------------------------------------------------


@needs_prometheus
@pytest.mark.parametrize(
    "command", [("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")]
)
def test_promtool_is_content(command: tuple[str, ...]) -> None:
    done = promtool(*command[:-1], str(OBSERVE / command[-1]))

    assert done.returncode == 0, done.stdout


def test_every_alert_is_tested_and_says_where_it_is_explained() -> None:
    tests = (OBSERVE / "alerts_test.yml").read_text()
    runbooks = re.findall(r"runbook: (\S+)", (OBSERVE / "alerts.yml").read_text())
    headings = re.findall(r"^### (\w+)$", DOCUMENT, re.MULTILINE)

    assert headings == ALERTS
    assert runbooks == [f"docs/metrics.md#{alert.lower()}" for alert in ALERTS]
    assert [alert for alert in ALERTS if tests.count(f"alertname: {alert}") < 2] == []


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    assert [p["title"] for p in PANELS if not p["description"] or not p["targets"]] == []
    assert [p["title"] for p in PANELS if not p["fieldConfig"]["defaults"]["unit"]] == []
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = [
        cell
        for at in (panel["gridPos"] for panel in DASHBOARD["panels"])
        for cell in itertools.product(
            range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])
        )
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23


# --- what a daemon tells -------------------------------------------------------------------------


@needs_prometheus
def test_the_document_lists_every_metric(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"bytes")
    address = free_address()
    with serving(metrics_listen=address) as daemon, forebay.Client(daemon.address) as client:
        client.get((tmp_path / "k").as_uri())  # an origin is told of from its first request on
        text = metrics_text(address)

    told: dict[str, tuple[str, str]] = {}
    for family in text_string_to_metric_families(text):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
        name = family.name + ("_total" if family.type == "counter" else "")
        told[name] = (family.type, ", ".join(labels))
    rows = re.findall(r"^\| `(forebay_\w+)` \| (\w+) \| ?(.*?) \| .+ \|$", DOCUMENT, re.MULTILINE)

    assert {name: (kind, labels.replace("`", "")) for name, kind, labels in rows} == told
    assert len(rows) == len(told)
    checked = promtool("check", "metrics", stdin=text)
    assert (checked.returncode, checked.stdout) == (0, "")


# --- the dashboard -------------------------------------------------------------------------------


def as_grafana_asks(query: str, address: str) -> str:
    """Return *query* with its variables replaced, by one daemon and all origins."""
    values = {
        "$instance": address.replace(".", r"\\."),
        "$origin": ".*",
        # Four times the scrape interval, were it not for a busy machine: all queries together, and
        # a scrape that it loses, must fit in.
        "$__rate_interval": "20s",
        "$__range": "1m",
    }
    for name, value in values.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


@needs_prometheus
def test_every_panel_shows_a_daemon_at_work(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    address = free_address()
    daemon = start_daemon(endpoint_url=proxy.url, metrics_listen=address, max_bytes="20MB")
    large = [bucket.url(f"large/{number}") for number in range(12)]
    for url in large:
        bucket.put(url.removeprefix(bucket.url()), bytes(LARGE))
    bucket.put("k", b"small")
    queries = {
        f"{panel['id']} {panel['title']} {target['refId']}": as_grafana_asks(
            target["expr"], address
        )
        for panel in PANELS
        for target in panel["targets"]
    }

    def work(client: forebay.Client) -> None:
        """Do something of each: misses and evictions, a retry, hits, an upload."""
        for url in large:
            client.get(url)
        client.evict(bucket.url("k"))
        proxy.fail("k", times=1)
        for _ in range(200):
            client.get(bucket.url("k"))
        client.put(bucket.url("new"), b"written")
        client.flush()

    with watched(tmp_path, address) as prometheus, forebay.Client(daemon.address) as client:

        def without_data() -> dict[str, str]:
            """Return the queries that have no number. With a daemon at work there are none."""
            work(client)
            return {
                name: query
                for name, query in queries.items()
                if not any(math.isfinite(value) for _, value in prometheus.query(query))
            }

        nothing: dict[str, str] = {}
        assert settled(without_data, nothing) == nothing

        for variable in DASHBOARD["templating"]["list"][1:]:
            metric, label = re.fullmatch(
                r"label_values\((.+), (\w+)\)", variable["query"]["query"]
            ).groups()  # type: ignore[union-attr]  # or the test fails
            series = prometheus.query(as_grafana_asks(metric, address))
            assert {labels[label] for labels, _ in series} <= {address, "s3://"}
            assert series


# --- the alerts ----------------------------------------------------------------------------------


@needs_prometheus
def test_each_alert_is_raised_for_the_daemon_that_is_in_trouble(
    start_daemon: StartDaemon, proxy: FaultProxy, bucket: Bucket, tmp_path: Path
) -> None:
    well, troubled, full = (free_address() for _ in range(3))
    bucket.put("k", b"small")
    bucket.put("large", bytes(LARGE))
    start_daemon(metrics_listen=well)
    start_daemon(metrics_listen=full, min_free_bytes="1EB")
    daemon = start_daemon(
        endpoint_url=proxy.url,
        metrics_listen=troubled,
        max_attempts=1,
        upload_max_age_s=0.1,
        spool_max_bytes="1MiB",
    )
    daemon.stop()
    (daemon.cache_dir / layout.SPOOL / "00000001-000000000001").write_bytes(b"no write of ours")
    daemon.start()
    shutil.rmtree(daemon.cache_dir / "blobs")
    with forebay.Client(daemon.address) as client, closed_port() as closed:
        nobody = f"127.0.0.1:{closed}"
        client.put(bucket.url("k").replace(bucket.name, "no-such-bucket"), b"refused")
        with pytest.raises(forebay.UploadFailedError):
            client.flush()
        proxy.gate("waits", method="PUT")
        client.put(bucket.url("waits"), bytes(970_000))
        proxy.fail("k", times=None)
        in_trouble = {(alert, troubled) for alert in ALERTS} - {
            ("ForebayDown", troubled),
            ("ForebayDiskFloor", troubled),
        }
        expected = in_trouble | {("ForebayDown", nobody), ("ForebayDiskFloor", full)}

        with watched(tmp_path, well, troubled, full, nobody) as prometheus:

            def raised() -> set[tuple[str, str]]:
                assert client.get(bucket.url("large")) == bytes(LARGE)  # and it cannot be kept
                with pytest.raises(forebay.OriginUnavailableError):
                    client.get(bucket.url("k"))
                return {
                    (rule["name"], alert["labels"]["instance"])
                    for rule in prometheus.rules()
                    for alert in rule["alerts"]  # also those that are pending
                }

            assert settled(raised, expected) == expected
            assert {rule["name"]: rule["health"] for rule in prometheus.rules()} == dict.fromkeys(
                ALERTS, "ok"
            )
            selectors = [
                selector
                for rule in prometheus.rules()
                for selector in re.findall(r"(?:forebay_|up)\w*(?:{.*?})?", rule["query"])
            ]
            nothing: list[str] = []  # that no daemon tells; some lack after a scrape that was late
            assert settled(lambda: [s for s in selectors if not prometheus.query(s)], nothing) == []
