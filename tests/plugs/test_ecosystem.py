"""Libraries that read and write ``forebay://`` by fsspec, and know nothing of Forebay."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
import torch
import zarr

import forebay
from support.serving import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.ceph import Bucket, Ceph
    from support.daemon import DaemonProcess


@pytest.fixture(scope="module")
def daemon(ceph: Ceph) -> Iterator[DaemonProcess]:
    with serving(endpoint_url=ceph.endpoint_url, env=ceph.env()) as running:
        yield running


@pytest.fixture
def options(daemon: DaemonProcess, bucket: Bucket) -> Iterator[dict[str, str]]:
    """What libraries call the storage options."""
    yield {"address": daemon.address}
    with forebay.Client(daemon.address) as client:
        client.flush(timeout_s=60)  # before the bucket is removed


@pytest.fixture
def url(bucket: Bucket) -> str:
    return f"forebay://{bucket.name}"


@pytest.fixture
def frame() -> pd.DataFrame:
    numbers = np.arange(1000)
    return pd.DataFrame({"number": numbers, "half": numbers / 2, "kind": numbers % 3})


@pytest.mark.parametrize("name", ["frame.csv", "frame.csv.gz", "frame.json"])
def test_pandas_writes_and_reads_text(
    url: str, options: dict[str, str], bucket: Bucket, frame: pd.DataFrame, name: str
) -> None:
    write, read = {
        "csv": (lambda *a, **k: frame.to_csv(*a, index=False, **k), pd.read_csv),
        "json": (frame.to_json, pd.read_json),
    }[name.split(".")[1]]

    write(f"{url}/{name}", storage_options=options)

    pd.testing.assert_frame_equal(read(f"{url}/{name}", storage_options=options), frame)
    assert fsspec.filesystem("forebay", **options).size(f"{bucket.name}/{name}") > 1000


def test_pandas_writes_and_reads_parquet(
    url: str, options: dict[str, str], frame: pd.DataFrame
) -> None:
    frame.to_parquet(f"{url}/frame.parquet", storage_options=options)

    again = pd.read_parquet(f"{url}/frame.parquet", storage_options=options, columns=["half"])

    pd.testing.assert_frame_equal(again, frame[["half"]])


def test_table_that_cannot_be_written_replaces_nothing(
    url: str, options: dict[str, str], bucket: Bucket, frame: pd.DataFrame
) -> None:
    bucket.put("frame.csv", b"before")
    fs = fsspec.filesystem("forebay", **options)

    with (
        pytest.raises(UnicodeEncodeError),
        fsspec.open(f"{url}/frame.csv", "w", encoding="ascii", **options) as file,
    ):
        frame.assign(kind="ü").to_csv(file)

    assert fs.cat(f"{bucket.name}/frame.csv") == b"before"


def test_pyarrow_writes_and_filters_a_partitioned_dataset(
    bucket: Bucket, options: dict[str, str], frame: pd.DataFrame
) -> None:
    fs = fsspec.filesystem("forebay", **options)
    pa.dataset.write_dataset(
        pa.Table.from_pandas(frame),
        f"{bucket.name}/table",
        format="parquet",
        filesystem=fs,
        partitioning=["kind"],
    )

    table = pa.dataset.dataset(f"{bucket.name}/table", filesystem=fs, partitioning=["kind"])

    assert len(table.files) == 3
    assert table.count_rows() == 1000
    found = table.to_table(filter=pa.dataset.field("kind") == 1, columns=["number"])
    assert sorted(found["number"].to_pylist()) == list(range(1, 1000, 3))
    with fs.open(f"{bucket.name}/table.parquet", "wb") as file:
        pa.parquet.write_table(found, file)
    assert pa.parquet.read_table(f"{bucket.name}/table.parquet", filesystem=fs).equals(found)


def test_zarr_writes_reads_and_deletes_chunks(
    url: str, options: dict[str, str], bucket: Bucket
) -> None:
    data = np.arange(10_000, dtype="int64").reshape(100, 100)
    group = zarr.open_group(f"{url}/store.zarr", mode="w", storage_options=options)
    array = group.create_array("numbers", shape=data.shape, chunks=(30, 30), dtype=data.dtype)
    array[:] = data
    array[5:35, 7] = -1
    data[5:35, 7] = -1

    again = zarr.open_group(f"{url}/store.zarr", mode="r", storage_options=options)

    assert sorted(again.array_keys()) == ["numbers"]
    assert np.array_equal(again["numbers"][:], data)
    assert np.array_equal(again["numbers"][10:40:3, -5:], data[10:40:3, -5:])
    with pytest.raises(ValueError, match="read-only"):
        again["numbers"][0, 0] = 1
    fs = fsspec.filesystem("forebay", **options)
    fs.flush()
    assert len(bucket.keys("store.zarr/numbers/c/")) == 16
    zarr.open_group(f"{url}/store.zarr", mode="w", storage_options=options)
    assert fs.find(f"{bucket.name}/store.zarr/numbers") == []


def test_torch_saves_and_loads_by_fsspec(url: str, options: dict[str, str]) -> None:
    state = {"weight": torch.arange(1_000_000), "step": 7}

    with fsspec.open(f"{url}/state.pt", "wb", **options) as file:
        torch.save(state, file)

    with fsspec.open(f"{url}/state.pt", "rb", **options) as file:
        again = torch.load(file)
    assert again["step"] == 7
    assert torch.equal(again["weight"], state["weight"])


def test_chained_file_caches_hold_the_object(
    url: str, options: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    bucket.put("object", b"chained")
    for protocol in ("filecache", "simplecache"):
        cache = {"cache_storage": str(tmp_path / protocol)}
        for _ in range(2):
            with fsspec.open(
                f"{protocol}::{url}/object", **{protocol: cache, "forebay": options}
            ) as file:
                assert file.read() == b"chained"
        assert fsspec.open_local(
            f"simplecache::{url}/object", simplecache=cache, forebay=options
        ).startswith(str(tmp_path))


def test_mapper_is_a_dict_of_objects(url: str, options: dict[str, str]) -> None:
    mapper = fsspec.get_mapper(f"{url}/map", **options)
    mapper["a/b"] = b"1"
    mapper.setitems({"c": b"2", "d": b"3"})

    assert dict(mapper) == {"a/b": b"1", "c": b"2", "d": b"3"}
    assert mapper.getitems(["c", "absent"], on_error="omit") == {"c": b"2"}
    del mapper["c"]
    assert sorted(mapper) == ["a/b", "d"]


_LOAD = """
import json, sys, datasets
datasets.disable_progress_bars()
url, cache = sys.argv[1:]
told = {}
for kind in ("csv", "json", "parquet"):
    for pattern in (f"{url}/rows.{kind}", f"{url}/*.{kind}"):
        loaded = datasets.load_dataset(kind, data_files=pattern, split="train", cache_dir=cache)
        streamed = datasets.load_dataset(kind, data_files=pattern, split="train", streaming=True)
        assert list(streamed) == list(loaded)
    told[kind] = [row["number"] for row in loaded]
loaded.save_to_disk(f"{url}/saved")
told["saved"] = [row["number"] for row in datasets.load_from_disk(f"{url}/saved")]
print(json.dumps(told))
"""


def test_hugging_face_datasets_load_stream_and_save_without_the_hub(
    url: str, options: dict[str, str], bucket: Bucket, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"number": range(50)})
    frame.to_csv(f"{url}/rows.csv", index=False, storage_options=options)
    frame.to_json(f"{url}/rows.json", orient="records", lines=True, storage_options=options)
    frame.to_parquet(f"{url}/rows.parquet", storage_options=options)

    done = subprocess.run(  # noqa: S603  # our own script
        [sys.executable, "-c", _LOAD, url, str(tmp_path / "cache")],
        env={
            **os.environ,
            "FOREBAY_ADDRESS": options["address"],
            "HF_ENDPOINT": "http://127.0.0.1:9",  # HF_HUB_OFFLINE refuses all URLs, also these
            "HF_HOME": str(tmp_path / "home"),
        },
        check=True,
        timeout=170,
        stdout=subprocess.PIPE,
    )

    told: dict[str, Any] = json.loads(done.stdout)
    assert told == {kind: list(range(50)) for kind in ("csv", "json", "parquet", "saved")}
    fsspec.filesystem("forebay", **options).flush()
    assert bucket.find("saved/state.json") is not None
