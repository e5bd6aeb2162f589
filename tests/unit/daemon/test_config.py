"""Where settings come from, which wins, and what a wrong one is told."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from forebayd.config import OriginConfig, load
from forebayd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "FOREBAY_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FOREBAY_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def toml(tmp_path: Path) -> Callable[[str], Path]:
    """Write a configuration file."""

    def write(text: str) -> Path:
        path = tmp_path / "forebay.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def origin_of(prefix: str, origins: tuple[OriginConfig, ...]) -> OriginConfig:
    return next(origin for origin in origins if origin.prefix == prefix)


def test_nothing_said_gives_the_usual_origins(tmp_path: Path) -> None:
    config = load(None, {})

    assert [(each.prefix, each.driver) for each in config.origins] == [
        ("s3://", "obstore"),
        ("file://", "fsspec"),
        ("http://", "fsspec"),
        ("https://", "fsspec"),
    ]
    assert config.cache_dir == tmp_path / "cache"
    assert config.max_bytes > 0
    assert config.listen[0].endswith("/forebay.sock")


@pytest.mark.parametrize(
    "text",
    ["data/coco/=s3://coco/, other=s3://b/o", '{"data/coco/": "s3://coco/", "other": "s3://b/o"}'],
)
def test_mapping_of_a_variable_is_written_as_for_clients(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", text)
    assert load(None, {}).path_mapping == {"data/coco/": "s3://coco/", "other": "s3://b/o"}


@pytest.mark.parametrize("text", ["data/coco/", "=s3://coco", "data/coco/=", "{", '{"a": 1}'])
def test_mapping_of_a_variable_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", text)
    with pytest.raises(ConfigError, match="path_mapping"):
        load(None, {})


def test_default_limit_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        config = load(None, {})

    assert f"taking {config.max_bytes}, 80 %" in caplog.text


def test_flags_win_over_the_environment_and_that_over_the_file(
    toml: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toml('max_bytes = "1GB"\nmin_free_bytes = "2GB"\nblock_bytes = "4MiB"')
    monkeypatch.setenv("FOREBAY_MAX_BYTES", "3GB")
    monkeypatch.setenv("FOREBAY_MIN_FREE_BYTES", "4GB")

    config = load(path, {"max_bytes": "5GB", "min_free_bytes": None})

    assert (config.max_bytes, config.min_free_bytes, config.block_bytes) == (
        5 * 10**9,
        4 * 10**9,
        4 << 20,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(1000, 1000, id="number"),
        pytest.param("1000", 1000, id="digits"),
        ("500GB", 500 * 10**9),
        ("500 gb", 500 * 10**9),
        ("1.5TiB", 3 * 2**39),
        ("10k", 10_000),
        ("16MiB", 16 << 20),
        ("7B", 7),
    ],
)
def test_sizes(text: object, expected: int) -> None:
    assert load(None, {"max_bytes": text}).max_bytes == expected


@pytest.mark.parametrize("text", ["", "much", "-1", 0, "1.5.2GB", "5iB", True, 1.5, "GB", "1GB x"])
def test_bad_sizes_name_setting_value_and_form(text: object) -> None:
    with pytest.raises(ConfigError, match=r"max_bytes = .*(must be a size such as|at least 1)"):
        load(None, {"max_bytes": text})


def test_endpoint_of_the_environment_and_of_the_flag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://general:1")
    assert load(None, {}).origins[0].endpoint_url == "http://general:1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:2")
    assert load(None, {}).origins[0].endpoint_url == "http://s3:2"
    monkeypatch.setenv("FOREBAY_ENDPOINT_URL", "http://forebay:3")
    assert load(None, {}).origins[0].endpoint_url == "http://forebay:3"

    config = load(None, {"endpoint_url": "http://flag:4", "profile": "ceph", "region": "here"})

    assert config.origins[0].endpoint_url == "http://flag:4"
    assert config.origins[0].region == "here"
    assert config.origins[0].credentials.profile == "ceph"
    assert config.origins[1] == OriginConfig("file://", driver="fsspec", write_mode="read_only")


def test_origins_of_the_file_keep_their_own_words(toml: Callable[[str], Path]) -> None:
    path = toml(
        """
        max_age_s = 60
        path_mapping = { "data/coco/" = "s3://coco/" }
        listen = ["unix:/run/x.sock", "127.0.0.1:7000"]

        [[origin]]
        prefix = "S3://train/"
        endpoint_url = "https://ceph.example:8443"
        driver = "s3fs"
        addressing = "virtual"
        freshness = "immutable"
        max_requests = 8
        credentials = { access_key_env = "MY_KEY", secret_key_env = "MY_SECRET" }

        [[origin]]
        prefix = "west:s3://"
        endpoint_url = "http://west"
        max_age_s = 1.5
        credentials.profile = "west"
        """
    )

    config = load(path, {"max_bytes": 1})

    train = origin_of("s3://train", config.origins)
    assert (train.driver, train.addressing, train.freshness) == ("s3fs", "virtual", "immutable")
    assert (train.max_age_s, train.max_requests) == (60, 8)
    assert train.credentials.access_key_env == "MY_KEY"
    west = origin_of("west:s3://", config.origins)
    assert (west.max_age_s, west.credentials.profile) == (1.5, "west")
    assert origin_of("s3://", config.origins).max_age_s == 60
    assert config.path_mapping == {"data/coco/": "s3://coco/"}
    assert config.listen == ("unix:/run/x.sock", "127.0.0.1:7000")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_byte = 1", "unknown setting 'max_byte': did you mean 'max_bytes'"),
        ("xyz = 1", "unknown setting 'xyz': known are .*cache_dir"),
        ("max_bytes = [", "is not TOML"),
        ("origin = 1", "table of its own"),
        ('[[origin]]\nprefix = "s3://"\nendpoint = "http://x"', "did you mean 'endpoint_url'"),
        ('[[origin]]\nendpoint_url = "http://x"', "prefix is missing"),
        ('[[origin]]\nprefix = "bucket"', "prefix 'bucket' is no URI"),
        ('[[origin]]\nprefix = "a:file://"', "only s3 takes a cluster's name"),
        ('[[origin]]\nprefix = "s3://a"\n[[origin]]\nprefix = "s3://a/"', "two origins"),
        (
            '[[origin]]\nprefix = "s3://"\ndriver = "boto"',
            "driver = 'boto': must be one of 'obstor",
        ),
        ('[[origin]]\nprefix = "s3://"\ndriver = "fsspec"', "is not for S3"),
        ('[[origin]]\nprefix = "file://"\ndriver = "s3fs"', "is for S3 only"),
        ('[[origin]]\nprefix = "s3://"\nendpoint_url = "host:1"', "is not http://host:port"),
        ('[[origin]]\nprefix = "s3://"\nca_bundle = "/no/file"', "'/no/file' is not a file"),
        (
            '[[origin]]\nprefix = "s3://"\nmax_age_s = "long"',
            "max_age_s = 'long': must be a number",
        ),
        ('[[origin]]\nprefix = "s3://"\nmax_age_s = -1', "must not be negative"),
        ('[[origin]]\nprefix = "s3://"\nmax_age_s = nan', "must be a number of seconds"),
        ('[[origin]]\nprefix = "s3://"\nmax_requests = 0', "must be a whole number from 1 on"),
        ('[[origin]]\nprefix = "s3://"\ndeadline_s = 0', "must be more than 0"),
        ('[[origin]]\nprefix = "s3://"\ncredentials = 1', "credentials = 1: must be a table"),
        ('[[origin]]\nprefix = "s3://"\ncredentials.secret = "x"', "unknown setting 'secret'"),
        (
            '[[origin]]\nprefix = "s3://"\ncredentials.access_key_env = "X"',
            "belong together",
        ),
        ('[[origin]]\nprefix = "s3://"\ncredentials.file = "/no/file"', "is not a file"),
        ('[[origin]]\nprefix = "s3://"\ncredentials.anonymous = "maybe"', "must be true or false"),
        ('path_mapping = ["x"]', "must be a table of texts"),
        ("listen = []", "listen names no address"),
        ('listen = ["0.0.0.0:70"]', "TCP beyond this machine needs tls_cert"),
        ('listen = ["unix:relative"]', "is not absolute"),
        ('listen = ["nonsense"]', "neither unix:/path/to.sock nor host:port"),
        (f'listen = ["unix:/{"x" * 107}"]', "has at most 107 bytes"),
        ("block_bytes = 5000", "no power of two"),
        ('packing_limit_bytes = "16MiB"', "a packed object is one block"),
        ('segment_bytes = "64KiB"', "lies in one segment"),
    ],
)
def test_wrong_settings_are_named(toml: Callable[[str], Path], text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(toml(text), {})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml", {})


def test_lists_and_mappings_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREBAY_LISTEN", "unix:/run/a.sock, localhost:7000")
    monkeypatch.setenv("FOREBAY_PATH_MAPPING", '{"data/": "s3://data/"}')

    config = load(None, {})

    assert config.listen == ("unix:/run/a.sock", "localhost:7000")
    assert config.path_mapping == {"data/": "s3://data/"}


def test_variable_that_looks_like_a_setting_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FOREBAY_MAX_BYTE", "1GB")
    monkeypatch.setenv("FOREBAY_SERVICE_HOST", "10.0.0.1")  # of Kubernetes
    monkeypatch.setenv("FOREBAY_ADDRESS", "unix:/run/a.sock")  # of clients
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://host:7480")  # looked at, by that name

    load(None, {})

    assert [record.getMessage() for record in caplog.records if "no setting" in record.msg] == [
        "FOREBAY_MAX_BYTE is no setting and is not looked at: did you mean FOREBAY_MAX_BYTES?"
    ]


def test_keys_in_an_endpoint_are_refused_and_not_shown() -> None:
    with pytest.raises(ConfigError, match="must not hold keys") as caught:
        load(None, {"endpoint_url": "http://me:hidden@host:1"})

    assert "hidden" not in str(caught.value)


def test_secrets_are_not_in_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-hidden")

    assert "the-" not in repr(load(None, {}))


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"endpoint_url": "http://h:80/"}, {"endpoint_url": "http://H"}, True),
        ({"endpoint_url": "http://h:1"}, {"endpoint_url": "http://h:2"}, False),
        ({"endpoint_url": "http://h"}, {"endpoint_url": "https://h"}, False),
        ({"endpoint_url": "http://h"}, {}, False),
        ({"driver": "s3fs"}, {"driver": "obstore"}, True),
        ({"addressing": "path"}, {"addressing": "virtual"}, True),
        ({"endpoint_url": "http://h", "region": "a"}, {"endpoint_url": "http://h"}, True),
        ({"region": "cn-north-1"}, {"region": "us-east-1"}, False),
        ({"account": "a"}, {"account": "b"}, False),
        ({"max_age_s": 1.0}, {"freshness": "always"}, True),
    ],
)
def test_identity_is_the_place_and_not_the_way(
    one: dict[str, object], other: dict[str, object], is_same: bool
) -> None:
    first = OriginConfig("s3://", **one)  # type: ignore[arg-type]  # of the parameters above
    second = OriginConfig("s3://", **other)  # type: ignore[arg-type]  # the same

    assert (first.identity == second.identity) is is_same


def test_identity_of_other_schemes_is_the_scheme() -> None:
    assert OriginConfig("file://").identity != OriginConfig("http://").identity
    assert OriginConfig("file:///data").identity == OriginConfig("file://").identity
