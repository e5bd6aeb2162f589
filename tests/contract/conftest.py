"""An S3 server in this process, and buckets on it."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from moto.server import ThreadedMotoServer

pytest.register_assert_rewrite(
    "contract.origin_contract", "contract.s3_contract", "contract.writing_contract"
)

from contract.s3_contract import bucket_client  # noqa: E402
from forebayd.config import CredentialsConfig, OriginConfig  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count()


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """The endpoint of moto's server, on a free port."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def moto_client(moto_url: str) -> Any:
    return bucket_client(moto_url, "key", "secret", "us-east-1")


@pytest.fixture
def moto_bucket(moto_client: Any) -> str:
    """The name of a fresh bucket."""
    name = f"bucket-{next(_numbers)}"
    moto_client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def moto_config(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> OriginConfig:
    """An origin at moto with short waits."""
    monkeypatch.setenv("MOTO_ACCESS", "key")
    monkeypatch.setenv("MOTO_SECRET", "secret")
    return OriginConfig(
        prefix="s3://",
        endpoint_url=moto_url,
        region="us-east-1",
        credentials=CredentialsConfig(None, "MOTO_ACCESS", "MOTO_SECRET"),
    )
