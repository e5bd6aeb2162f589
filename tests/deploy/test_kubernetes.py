"""The manifests: what a cluster gets is of its API, fits the daemon, and an update stops nobody."""

from __future__ import annotations

import os
import stat
import subprocess
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import kubernetes_validate  # type: ignore[import-untyped]  # ships no stubs
import pytest

import forebay
from forebayd.config import load
from support import remote_work as work
from support.daemon import DaemonProcess
from support.kustomize import FOLDER, only, read, render
from support.remote import RemoteClient
from support.spooled import wait_until
from support.users import as_user, can_serve, with_capabilities

if TYPE_CHECKING:
    from conftest import StartDaemon
    from support.ceph import Bucket, Ceph
    from support.kustomize import Resource

KUSTOMIZATIONS = ["base", "overlays/nvme", "training"]
WHOLE_FILES = ["base/daemonset.yaml", "training/job.yaml"]
API_VERSIONS = ["1.28", "1.37"]


def daemonset() -> Resource:
    return only(read("base/daemonset.yaml"), "DaemonSet")


def job() -> Resource:
    return only(read("training/job.yaml"), "Job")


def pod_of(workload: Resource) -> Resource:
    pod: Resource = workload["spec"]["template"]["spec"]
    return pod


def invalid(resource: Resource, version: str) -> str | None:
    """Return what the API of a version says against a resource; it knows unknown fields, too."""
    try:
        kubernetes_validate.validate(resource, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return str(error.message)
    return None


@pytest.mark.parametrize("version", API_VERSIONS)
@pytest.mark.parametrize("name", WHOLE_FILES)
def test_resource_in_a_file_is_of_the_api(name: str, version: str) -> None:
    resources = read(name)

    assert resources
    assert [found for each in resources if (found := invalid(each, version))] == []


@pytest.mark.parametrize("version", API_VERSIONS)
@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_rendered_resource_is_of_the_api(name: str, version: str) -> None:
    resources = render(FOLDER / name)

    assert resources
    assert [found for each in resources if (found := invalid(each, version))] == []


def test_misspelt_field_would_be_found() -> None:
    misspelt = daemonset()
    (container,) = pod_of(misspelt)["containers"]
    container["livenessProb"] = container.pop("livenessProbe")

    assert "livenessProb" in str(invalid(misspelt, API_VERSIONS[-1]))


# --- the manifests and the daemon -------------------------------------------------------------


@pytest.mark.parametrize("name", ["base", "overlays/nvme"])
def test_daemon_takes_the_configuration_and_has_time_to_end(name: str, tmp_path: Path) -> None:
    resources = render(FOLDER / name)
    pod = pod_of(only(resources, "DaemonSet"))
    file = tmp_path / "forebay.toml"
    file.write_text(only(resources, "ConfigMap")["data"]["forebay.toml"])

    config = load(file, {})

    (port,) = pod["containers"][0]["ports"]
    assert config.metrics_listen == f"0.0.0.0:{port['containerPort']}"
    assert pod["terminationGracePeriodSeconds"] >= 2 * config.shutdown_grace_s + 30


def test_update_never_has_two_daemons_on_a_node() -> None:
    """The second would wait for the lock of the cache folder, and the first for the second."""
    update = only(render(FOLDER / "overlays/nvme"), "DaemonSet")["spec"]["updateStrategy"]

    assert update["type"] == "RollingUpdate"
    assert update["rollingUpdate"]["maxSurge"] == 0


def test_image_and_manifest_mean_the_same_folders() -> None:
    dockerfile = (FOLDER.parent / "Dockerfile").read_text()
    (container,) = pod_of(daemonset())["containers"]
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    (trainer,) = pod_of(job())["containers"]
    told = {variable["name"]: variable["value"] for variable in trainer["env"]}

    for name in ("FOREBAY_ADDRESS", "FOREBAY_CACHE_DIR"):
        assert f"{name}={told[name]}" in dockerfile
    assert told["FOREBAY_CACHE_DIR"] in mounted
    assert str(Path(told["FOREBAY_ADDRESS"].removeprefix("unix:")).parent) in mounted


def test_probes_and_prometheus_are_answered(
    start_daemon: StartDaemon, ceph: Ceph, address: str
) -> None:
    template = daemonset()["spec"]["template"]
    (container,) = template["spec"]["containers"]
    paths = {
        container[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "liveness", "readiness")
    }
    paths.add(template["metadata"]["annotations"]["prometheus.io/path"])

    start_as_configured(start_daemon, ceph, metrics_listen=address)

    assert len(paths) == 3
    for path in paths:
        with urllib.request.urlopen(f"http://{address}{path}") as reply:
            assert reply.status == 200


def start_as_configured(
    start: StartDaemon, ceph: Ceph, metrics_listen: str = "off"
) -> DaemonProcess:
    """Start a daemon with the base's configuration, in front of the tests' Ceph and disk."""
    return start(
        config=(FOLDER / "base" / "forebay.toml").read_text(),
        env={"FOREBAY_ENDPOINT_URL": ceph.endpoint_url, "FOREBAY_MIN_FREE_BYTES": "64MiB"},
        metrics_listen=metrics_listen,
    )


# --- an update --------------------------------------------------------------------------------


def test_hits_go_on_while_an_update_replaces_the_daemon(
    start_daemon: StartDaemon, ceph: Ceph, bucket: Bucket
) -> None:
    contents = {bucket.url(f"{number}"): os.urandom(4000) for number in range(20)}
    contents[bucket.url("large")] = os.urandom(3 << 20)
    for url, data in contents.items():
        bucket.put(url.rpartition("/")[2], data)
    bucket.put("new", b"new")
    daemon = start_as_configured(start_daemon, ceph)
    reader = Reader(contents)
    with forebay.Client(daemon.address) as client, ThreadPoolExecutor() as threads:
        client.get_many(list(contents))
        reading = threads.submit(reader.read, client)
        try:
            reader.wait_for_more()
            assert daemon.stop() == 0  # as the kubelet does it: SIGTERM, and waiting
            reader.wait_for_more()
            missed = threads.submit(client.get, bucket.url("new"))
            reader.wait_for_more()
            assert not missed.done(), "nobody can answer it"
            daemon.start()
            assert missed.result(60) == b"new"
            reader.wait_for_more()
        finally:
            reader.is_stopped = True
        reading.result(60)
        stats = client.stats()

    assert stats.misses == 1, "all but the new object were hits"


class Reader:
    """Reads all objects again and again, and compares them."""

    def __init__(self, contents: dict[str, bytes]) -> None:
        self.contents = contents
        self.rounds = 0
        self.is_stopped = False
        self.has_ended = False

    def read(self, client: forebay.Client) -> None:
        """Read until stopped. Raises what a read raises, or AssertionError for wrong bytes."""
        try:
            while not self.is_stopped:
                for url, data in self.contents.items():
                    assert client.get(url) == data, url
                self.rounds += 1
        finally:
            self.has_ended = True

    def wait_for_more(self) -> None:
        """Wait until every object was read some times more."""
        wanted = self.rounds + 20
        wait_until(lambda: self.has_ended or self.rounds >= wanted, "more rounds of reads")


# --- users ------------------------------------------------------------------------------------


def test_daemon_and_trainer_meet_in_the_folders_that_the_manifest_makes(
    shared_dir: Path, tmp_path: Path
) -> None:
    """On a node where the kubelet has made them as root's, under the manifests' users."""
    pod = pod_of(daemonset())
    trainer = pod_of(job())["securityContext"]
    (init,) = pod["initContainers"]
    user = as_user(pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"])
    if not can_serve(user):
        pytest.skip("needs root, and a Python that others may run")
    cache_dir, sockets = folders = [shared_dir / Path(name).name for name in ("cache", "run")]
    for folder in folders:
        folder.mkdir(mode=0o755)
    make = [
        *with_capabilities(init["securityContext"]["capabilities"]["add"]),
        *init["command"],
        *map(str, folders),
    ]
    (shared_dir / "origin").mkdir()
    (shared_dir / "origin" / "k").write_bytes(b"bytes")
    url = f"file://{shared_dir}/origin/k"
    daemon = DaemonProcess(
        cache_dir=cache_dir,
        address=f"unix:{sockets}/forebay.sock",
        log_file=tmp_path / "daemon.log",
        arguments=("--max-bytes", "100MB", "--metrics-listen", "off"),
        prefix=user,
    )

    for _ in range(2):  # an update, or a reboot, makes them again
        subprocess.run(make, check=True)  # noqa: S603  # of the manifest
        assert [stat.S_IMODE(folder.stat().st_mode) for folder in folders] == [0o2750] * 2
        daemon.start()
        try:
            # One group is enough for this test: the one that the manifest adds.
            member = (trainer["runAsUser"], *trainer["supplementalGroups"])
            with RemoteClient(daemon.address, user=member) as client:
                assert client.do(work.get, url) == b"bytes"
                assert client.do(work.is_attached)
                with pytest.raises(PermissionError):
                    client.do(work.write_file, str(sockets / "forebay.sock.mine"))
            assert daemon.stop() == 0
        finally:
            daemon.kill9()
