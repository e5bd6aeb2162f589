"""Paths to URIs: tiers, whole components, normal form of local paths, opaque URIs."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from forebay import InvalidPathError
from forebay._paths import Paths, as_text, check_mapping, parse_mapping


def paths(*mappings: dict[str, str]) -> Paths:
    return Paths(check_mapping(mapping) for mapping in mappings)


@pytest.mark.parametrize("key", ["data/x", "data/x/", "./data/x", "./data/x/", "data//x/."])
@pytest.mark.parametrize("path", ["data/x/a", "./data/x/a", "data/./y/../x//a"])
def test_all_spellings_of_a_local_prefix_fit_all_spellings_of_a_path(key: str, path: str) -> None:
    assert paths({key: "s3://bucket/base/"}).uri(path) == "s3://bucket/base/a"


@pytest.mark.parametrize("target", ["s3://bucket/base", "s3://bucket/base/"])
def test_the_slash_at_the_end_of_a_target_does_not_matter(target: str) -> None:
    mapped = paths({"data": target})
    assert mapped.uri("data/a") == "s3://bucket/base/a"
    assert mapped.uri("data") == "s3://bucket/base"
    assert mapped.uri("data/") == "s3://bucket/base/"


def test_a_prefix_is_one_of_whole_components() -> None:
    mapped = paths({"data/coco": "s3://bucket/coco"})
    with pytest.raises(InvalidPathError, match="no scheme"):
        mapped.uri("data/coco2/a")


def test_the_longest_prefix_wins() -> None:
    mapped = paths({"data": "s3://all", "data/coco": "s3://coco"})
    assert mapped.uri("data/coco/a") == "s3://coco/a"
    assert mapped.uri("data/other/a") == "s3://all/other/a"


def test_a_prefix_fits_at_the_start_only_and_once() -> None:
    mapped = paths({"data": "s3://bucket/data", "s3://bucket/data": "s3://wrong"})
    assert mapped.uri("data/data/a") == "s3://bucket/data/data/a"
    with pytest.raises(InvalidPathError):
        mapped.uri("old/data/a")


def test_an_earlier_tier_wins_over_a_longer_prefix_of_a_later_one() -> None:
    mapped = paths({"data": "s3://client"}, {"data/coco": "s3://environment"})
    assert mapped.uri("data/coco/a") == "s3://client/coco/a"


def test_a_later_tier_is_used_where_the_earlier_ones_do_not_fit() -> None:
    mapped = paths({"data": "s3://client"}, {"weights": "s3://daemon"})
    assert mapped.uri("weights/a") == "s3://daemon/a"


def test_prefixes_may_be_uris() -> None:
    mapped = paths({"http://download.openmmlab.com/": "s3://mirror/"})
    assert mapped.uri("http://download.openmmlab.com/a/b.pth") == "s3://mirror/a/b.pth"


@pytest.mark.parametrize("key", ["a/../b", "a//b", "./a", "a/.", "%20+ ü", "a/"])
def test_the_key_of_a_uri_stays_as_it_is(key: str) -> None:
    assert paths().uri(f"s3://bucket/{key}") == f"s3://bucket/{key}"
    assert paths({"s3://bucket": "s3://mirror"}).uri(f"s3://bucket/{key}") == f"s3://mirror/{key}"


def test_the_scheme_is_written_in_lower_case() -> None:
    assert paths({"s3://bucket": "s3://mirror"}).uri("S3://bucket/a") == "s3://mirror/a"


def test_a_cluster_name_is_kept() -> None:
    assert paths({"data": "ceph:s3://bucket"}).uri("data/a") == "ceph:s3://bucket/a"


def test_the_root_and_the_working_folder_can_be_prefixes() -> None:
    mapped = paths({"/": "s3://absolute", "./": "s3://relative"})
    assert mapped.uri("/data/a") == "s3://absolute/data/a"
    assert mapped.uri("data/a") == "s3://relative/data/a"
    with pytest.raises(InvalidPathError):
        mapped.uri("../data/a")


def test_a_target_may_be_the_root_of_the_local_disk() -> None:
    assert paths({"data": "file:///"}).uri("data/a") == "file:///a"
    assert paths({"data": "file:///"}).uri("data") == "file:///"


def test_an_empty_path_is_refused() -> None:
    with pytest.raises(InvalidPathError, match="empty"):
        paths().uri("")


@pytest.mark.parametrize("target", ["bucket/base", "", "s3://", "file://relative"])
def test_a_target_must_be_a_uri(target: str) -> None:
    with pytest.raises(InvalidPathError, match="'data'"):
        check_mapping({"data": target})


def test_an_empty_prefix_is_refused() -> None:
    with pytest.raises(InvalidPathError, match="empty"):
        check_mapping({"": "s3://bucket"})


def test_a_mapping_must_be_a_mapping() -> None:
    with pytest.raises(TypeError, match="path_mapping"):
        check_mapping(1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        '{"data": "s3://b/x=1", "w": "s3://w"}',
        "data=s3://b/x=1,w=s3://w",
        " data=s3://b/x=1 , w=s3://w,",
    ],
)
def test_the_environment_takes_json_and_pairs(text: str) -> None:
    assert parse_mapping(text) == {"data": "s3://b/x=1", "w": "s3://w"}


@pytest.mark.parametrize("text", ["data", "=s3://b", "data=", "{", '{"data": 1}'])
def test_a_malformed_mapping_in_the_environment_is_refused(text: str) -> None:
    with pytest.raises(InvalidPathError, match="FOREBAY_PATH_MAPPING"):
        parse_mapping(text)


def test_paths_are_str_or_path_like() -> None:
    assert as_text(PurePosixPath("data/x")) == "data/x"
    for wrong in (b"data", 1, None):
        with pytest.raises(TypeError):
            as_text(wrong)  # type: ignore[arg-type]


def test_names_in_a_folder_are_mapped_alike_unless_one_is_named() -> None:
    mapped = paths({"data": "s3://bucket", "data/coco/special": "s3://other"})
    assert mapped.is_uniform_below("data/x")
    assert mapped.is_uniform_below("data/coco/special")
    assert not mapped.is_uniform_below("data/coco")
    assert not mapped.is_uniform_below("./data//coco")
