"""The stand-in for ``petrel_client``: what programs use of the SDK."""

from __future__ import annotations

import pickle
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

import forebay
from forebay import petrel
from forebay.petrel import Client

if TYPE_CHECKING:
    from pathlib import Path

    from support.ceph import Bucket

pytestmark = pytest.mark.usefixtures("plugged")


@pytest.mark.parametrize("name", ["get", "Get", "get_and_update", "GetAndUpdate"])
def test_what_is_there_is_bytes_and_what_is_not_is_none(bucket: Bucket, name: str) -> None:
    bucket.put("k", b"x")
    get = getattr(Client(), name)

    assert get(bucket.url("k")) == b"x"
    assert get(f"cluster:{bucket.url('k')}") == b"x"
    assert get(bucket.url("none")) is None
    assert get("s3://there-is-no-such-bucket/k") is None


def test_what_may_not_be_read_is_none(
    bucket: Bucket, ceph_client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.put("secret", b"x")
    policy = (
        '{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":"*","Action":'
        f'"s3:GetObject","Resource":"arn:aws:s3:::{bucket.name}/secret"}}]}}'
    )
    ceph_client.put_bucket_policy(Bucket=bucket.name, Policy=policy)

    assert Client().get(bucket.url("secret")) is None
    assert "secret" in caplog.text
    ceph_client.delete_bucket_policy(Bucket=bucket.name)


def test_updating_sees_what_others_wrote(bucket: Bucket) -> None:
    client = Client()
    bucket.put("k", b"old")
    assert client.get(bucket.url("k")) == b"old"
    bucket.put("k", b"new")

    assert client.get(bucket.url("k")) == b"old"  # within max_age
    assert client.get(bucket.url("k"), update_cache=True) == b"new"
    assert client.get(bucket.url("k")) == b"new"


def test_ranges_and_streams(bucket: Bucket) -> None:
    bucket.put("k", bytes(range(100)))
    client = Client()

    assert client.get(bucket.url("k"), range="10-19") == bytes(range(10, 20))
    assert client.get(bucket.url("k"), range="bytes=90-") == bytes(range(90, 100))
    assert client.get(bucket.url("k"), range=(0, 0)) == b"\0"
    with client.get(bucket.url("k"), enable_stream=True, no_cache=True) as stream:
        assert stream.read(5) == bytes(range(5))
    with pytest.raises(ValueError, match="first-last"):
        client.get(bucket.url("k"), range="ten")


def test_what_is_put_is_there_for_all(bucket: Bucket, tmp_path: Path) -> None:
    client = Client(str(_conf(tmp_path)), enable_mc=True)
    (tmp_path / "file").write_bytes(b"file")

    client.put(bucket.url("bytes"), b"bytes")
    client.put(bucket.url("text"), "é")
    with (tmp_path / "file").open("rb") as file:
        client.put(bucket.url("file"), file, update_cache=True)
    assert client.put_with_info(bucket.url("info"), memoryview(b"info")) == (None, {})

    assert client.get(bucket.url("text")) == "é".encode()
    assert client.get_with_info(bucket.url("none")) == (None, {})
    data, info = client.get_with_info(bucket.url("info"))
    assert (data, info["size"]) == (b"info", 4)
    forebay.Client().flush()
    keys = bucket.keys()
    assert dict(zip(keys, map(bucket.get, keys), strict=True)) == {
        "bytes": b"bytes",
        "text": "é".encode(),
        "file": b"file",
        "info": b"info",
    }


def test_names(bucket: Bucket) -> None:
    client = Client()
    for key in ("dir/a", "dir/sub/b", "dir2/c"):
        client.put(bucket.url(key), b"x")

    assert sorted(client.list(bucket.url("dir"))) == ["a", "sub/"]
    assert sorted(client.list(f"cluster:{bucket.url('dir/')}")) == ["a", "sub/"]
    assert list(client.list(bucket.url("none"))) == []
    assert client.contains(bucket.url("dir/a"))
    assert not client.contains(bucket.url("dir"))
    assert client.isdir(bucket.url("dir"))
    assert not client.isdir(bucket.url("dir/a"))
    found = dict(client.get_file_iterator(bucket.url("dir")))
    assert sorted(found) == [f"{bucket.name}/dir/a", f"{bucket.name}/dir/sub/b"]
    assert found[f"{bucket.name}/dir/a"]["Key"] == "dir/a"
    assert found[f"{bucket.name}/dir/a"]["Size"] == 1


def test_deleted_objects_are_gone(bucket: Bucket) -> None:
    client = Client()
    client.put(bucket.url("k"), b"x")

    client.delete(bucket.url("k"))
    client.delete(bucket.url("k"))

    assert not client.contains(bucket.url("k"))


def test_presigned_requests_work_without_keys(bucket: Bucket) -> None:
    client = Client()
    client.put(bucket.url("k"), b"x")
    forebay.Client().flush()

    with urllib.request.urlopen(client.generate_presigned_url(bucket.url("k"))) as reply:
        assert reply.read() == b"x"
    url = client.generate_presigned_url(bucket.url("new"), "put_object", expires_in=60)
    urllib.request.urlopen(urllib.request.Request(url, b"new", method="PUT")).close()
    assert bucket.get("new") == b"new"
    with pytest.raises(forebay.InvalidPathError, match="none of get_object"):
        client.generate_presigned_url(bucket.url("k"), "list_buckets")


def test_presigned_requests_end(bucket: Bucket) -> None:
    bucket.put("k", b"x")
    url = Client().generate_presigned_url(bucket.url("k"), expires_in=1)
    broken = url.replace("/k?", "/other?")

    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(broken)
    assert caught.value.code == 403
    caught.value.close()


def test_forms_are_signed(bucket: Bucket) -> None:
    form = Client().generate_presigned_post(
        bucket.url("posted"), {"acl": "private"}, [{"acl": "private"}], 60
    )
    boundary = "----b"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in form["fields"].items()
    ]
    file = 'Content-Disposition: form-data; name="file"; filename="f"\r\n\r\nposted\r\n'
    body = "".join([*parts, f"--{boundary}\r\n{file}--{boundary}--\r\n"]).encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    urllib.request.urlopen(urllib.request.Request(form["url"], body, headers)).close()

    assert bucket.get("posted") == b"posted"


def test_buckets_are_made_once(ceph_client: Any) -> None:
    client = Client()

    assert client.create_bucket("s3://made-by-petrel")
    assert client.create_bucket("s3://made-by-petrel/")

    client.put("s3://made-by-petrel/k", b"x")
    assert client.get("s3://made-by-petrel/k") == b"x"
    client.delete("s3://made-by-petrel/k")
    forebay.Client().flush()
    ceph_client.delete_bucket(Bucket="made-by-petrel")


def test_default_cluster_of_the_file(tmp_path: Path, bucket: Bucket) -> None:
    bucket.put("k", b"x")
    client = Client(str(_conf(tmp_path)))

    assert client._uri("s3://b/k") == "north:s3://b/k"
    assert client._uri("S3://b/k") == "north:S3://b/k"
    assert client.get(bucket.url("k")) == b"x"
    with pytest.raises(FileNotFoundError):
        Client(str(tmp_path / "none.conf"))
    (tmp_path / "bad.conf").write_text("no section\n")
    with pytest.raises(ValueError, match=r"bad\.conf is not a configuration file"):
        Client(str(tmp_path / "bad.conf"))


def test_wrong_uris_have_the_sdks_error() -> None:
    client = Client()

    for call in (client.get, lambda uri: client.put(uri, b"x")):
        with pytest.raises(petrel.InvalidS3UriError, match="no scheme"):
            call("data/unmapped")


def test_clients_are_pickled(bucket: Bucket, tmp_path: Path) -> None:
    bucket.put("k", b"x")
    client = pickle.loads(pickle.dumps(Client(str(_conf(tmp_path)))))  # noqa: S301

    assert client.get(bucket.url("k")) == b"x"
    assert client._uri("s3://b/k") == "north:s3://b/k"
    client.set_count_disp(3)


def _conf(folder: Path) -> Path:
    path = folder / "petreloss.conf"
    path.write_text(
        "[DEFAULT]\ndefault_cluster = north\nenable_mc = True\n"
        "[north]\naccess_key = ignored\nsecret_key = 100%ignored\nendpoint_url = http://nowhere\n"
    )
    return path
