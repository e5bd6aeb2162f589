"""The tree of errors and its other parents, by which code written for files knows them."""

from __future__ import annotations

import errno
import pickle

import pytest

import forebay
from forebay._errors import from_reply
from forebay_protos import cache_pb2 as pb

OS_ERRORS = {
    forebay.ObjectNotFoundError: (FileNotFoundError, errno.ENOENT),
    forebay.AccessDeniedError: (PermissionError, errno.EACCES),
    forebay.OriginUnavailableError: (OSError, errno.EIO),
    forebay.StaleFileError: (OSError, errno.ESTALE),
    forebay.CacheFullError: (OSError, errno.ENOSPC),
    forebay.DaemonUnavailableError: (ConnectionError, errno.ECONNREFUSED),
    forebay.DeadlineExceededError: (TimeoutError, errno.ETIMEDOUT),
}


@pytest.mark.parametrize("error_class", OS_ERRORS)
def test_errors_are_those_of_files_too(error_class: type[OSError]) -> None:
    parent, number = OS_ERRORS[error_class]  # type: ignore[index]
    error = error_class("s3://bucket/a is gone")
    assert isinstance(error, parent)
    assert isinstance(error, forebay.ForebayError)
    assert error.errno == number
    assert str(error) == "s3://bucket/a is gone"


@pytest.mark.parametrize("error_class", [*OS_ERRORS, forebay.InvalidPathError])
def test_errors_can_be_sent_to_another_process(error_class: type[Exception]) -> None:
    copy = pickle.loads(pickle.dumps(error_class("what")))  # noqa: S301  # our own
    assert type(copy) is error_class
    assert str(copy) == "what"


@pytest.mark.parametrize("kind", pb.ErrorKind.values())
def test_every_kind_of_the_contract_has_an_error(kind: pb.ErrorKind) -> None:
    error = from_reply(pb.Error(kind=kind, message="what"))
    assert str(error) == "what"
    is_plain = type(error) is forebay.ForebayError
    assert is_plain == (kind in (pb.ERROR_KIND_UNSPECIFIED, pb.CACHE_BROKEN, pb.INTERNAL_ERROR))
