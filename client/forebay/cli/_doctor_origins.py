"""``forebay doctor``: whether the origins answer, take the keys, and agree about the time."""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from forebay.cli._bounded import bounded
from forebay.cli._common import duration_text
from forebay_protos import uris
from forebay_protos.findings import Finding, ok, problem, problem_of, skipped, warning

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from email.message import Message

_AWS = "https://s3.amazonaws.com"
_REFUSED_SKEW_S = 15 * 60  # by S3
_SKEW_S = 30.0  # of a machine that keeps time, far off
_OF_THE_KEYS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "no S3 cred")
_CURE_KEYS = (
    "give the daemon AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the `credentials` of its "
    "[[origin]], and see what they may do"
)


@dataclass(frozen=True, slots=True)
class Origin:
    """An origin as it is configured."""

    prefix: str
    endpoint_url: str | None
    ca_bundle: str | None

    @property
    def is_s3(self) -> bool:
        return uris.without_cluster(self.prefix).startswith("s3://")

    @property
    def is_default_aws(self) -> bool:
        """Tell whether it is S3 as everybody has it who says nothing of S3."""
        return self.prefix == "s3://" and self.endpoint_url is None

    @property
    def is_bare(self) -> bool:
        """Tell whether it names a scheme only."""
        return self.prefix.endswith("://")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint says to anybody."""

    seconds: float  # with the connection
    skew_s: float | None  # how much this machine's clock is ahead


class UnreachableError(Exception):
    """No answer: what was found, and what to do about it."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo


def check_origins(
    origins: list[Origin],
    wanted: Mapping[str, str],
    is_there: Callable[[str], bool],
    *,
    from_here: bool,
    by_daemon: bool,
    timeout_s: float,
) -> Iterator[Finding]:
    """Look at each origin, and at the URIs that are *wanted*, by the name of the check.

    *is_there* asks an origin with the daemon's keys. Without *from_here* the daemon is on another
    machine, so that its endpoints and its clock are not ours to judge; *by_daemon* tells that it is
    asked, and not what it would use.
    """
    by_prefix = {origin.prefix: origin for origin in origins}
    for origin in origins:
        mine = {
            check: uri
            for check, uri in wanted.items()
            if (found := uris.resolve(uri, by_prefix)) and found[2] is origin
        }
        if not mine and not origin.is_bare:
            mine = {f"origin {origin.prefix}": origin.prefix}
        if not origin.is_s3:
            yield from (_there(check, uri, is_there, timeout_s) for check, uri in mine.items())
            continue
        yield from _check_s3(
            origin, mine, is_there, from_here=from_here, by_daemon=by_daemon, timeout_s=timeout_s
        )


def _check_s3(
    origin: Origin,
    mine: Mapping[str, str],
    is_there: Callable[[str], bool],
    *,
    from_here: bool,
    by_daemon: bool,
    timeout_s: float,
) -> Iterator[Finding]:
    name = f"endpoint of {origin.prefix}"
    if origin.is_default_aws and not mine:
        yield skipped(name, "no endpoint_url is set, so s3:// is AWS; name a bucket to try it")
        return
    url = origin.endpoint_url or _AWS
    unreachable = None
    if from_here:
        try:
            answer = ask_endpoint(url, origin.ca_bundle, timeout_s)
        except UnreachableError as error:
            unreachable = error
        else:
            yield ok(name, f"{url} answers in {duration_text(answer.seconds)}")
            yield _clock(answer.skew_s)
    if unreachable is not None and not by_daemon:
        yield problem(name, f"{url}: {unreachable}", unreachable.todo)
        return
    # A bucket that is not there shows as well whether the keys are taken.
    probe = origin.prefix + f"forebay-doctor-{secrets.token_hex(8)}"
    asked = (
        [_there(check, uri, is_there, timeout_s) for check, uri in mine.items()]
        if mine
        else [_keys(origin, probe, is_there, timeout_s)]
    )
    if unreachable is not None:
        if any(finding.level in ("ok", "warning") for finding in asked):
            yield skipped(name, f"the daemon reaches {url}, this place does not: {unreachable}")
        else:
            yield problem(name, f"{url}: {unreachable}", unreachable.todo)
    yield from asked


def _keys(origin: Origin, probe: str, is_there: Callable[[str], bool], timeout_s: float) -> Finding:
    name = f"keys of {origin.prefix}"
    finding = _there(name, probe, is_there, timeout_s)
    if finding.level == "warning":
        return ok(name, "accepted; name a bucket to see whether they may read it")
    refused = "the origin refused" in finding.found
    if refused and not any(text in finding.found for text in _OF_THE_KEYS):
        # Of a bucket that nobody has some origins say so to whoever may not list all buckets.
        return warning(
            name,
            "the origin tells these keys nothing about unknown buckets",
            "name a bucket that they may read: forebay doctor s3://bucket",
        )
    return finding


def _there(check: str, uri: str, is_there: Callable[[str], bool], timeout_s: float) -> Finding:
    began = time.monotonic()
    try:
        found = bounded(timeout_s, lambda: is_there(uri))
    except TimeoutError:
        return problem(
            check,
            f"{uri}: no answer in {timeout_s:g} s",
            "see whether the endpoint is up and can be reached from the daemon",
        )
    except Exception as error:  # of two trees, the client's and the daemon's, with like names
        kind = type(error).__name__
        if kind == "ObjectNotFoundError":
            found = False
        elif kind in ("AccessDeniedError", "ConfigError"):
            return problem(check, str(error), _CURE_KEYS)
        else:
            return problem_of(check, error)
    taken = duration_text(time.monotonic() - began)
    if found:
        return ok(check, f"{uri} is there ({taken})")
    return warning(
        check,
        f"{uri}: no such bucket, or nothing below it ({taken})",
        "see whether the name is right",
    )


def _clock(skew_s: float | None) -> Finding:
    if skew_s is None:
        return skipped("clock", "the endpoint does not tell its time")
    apart = f"this machine is {duration_text(abs(skew_s))} "
    apart += f"{'ahead of' if skew_s > 0 else 'behind'} the endpoint"
    cure = "set the clock of the one that is wrong, and keep it by NTP (chrony)"
    if abs(skew_s) >= _REFUSED_SKEW_S:
        return problem("clock", f"{apart}: S3 refuses from 15 minutes on", cure)
    if abs(skew_s) >= _SKEW_S:
        return warning("clock", apart, cure)
    return ok("clock", "this machine and the endpoint agree")


def ask_endpoint(url: str, ca_bundle: str | None, timeout_s: float) -> Answer:
    """Ask for nothing in particular, without keys. Raises UnreachableError."""
    host = urlsplit(url).hostname
    try:
        return bounded(timeout_s, lambda: _head(url, ca_bundle, timeout_s))
    except TimeoutError:
        raise UnreachableError(
            f"no answer in {timeout_s:g} s", "see whether it is up, and firewalls in between"
        ) from None
    except urllib.error.URLError as error:
        reason = error.reason
    except (OSError, http.client.HTTPException) as error:
        reason = error
    raise _unreachable(reason, host)


def _unreachable(reason: object, host: str | None) -> UnreachableError:
    if isinstance(reason, socket.gaierror):
        return UnreachableError(
            f"{host} has no address ({reason.strerror})",
            "see whether the host in endpoint_url is right, and the DNS of this machine",
        )
    if isinstance(reason, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"its certificate is not trusted ({reason.verify_message})",
            "name the CA's file as ca_bundle of the [[origin]]",
        )
    if isinstance(reason, ssl.SSLError):
        return UnreachableError(
            f"no TLS ({reason.reason})", "write http:// in endpoint_url if it speaks none"
        )
    if isinstance(reason, ConnectionRefusedError):
        return UnreachableError(
            "nothing listens there", "see whether it is up, and host and port in endpoint_url"
        )
    if isinstance(reason, TimeoutError):
        return UnreachableError("no answer", "see whether it is up, and firewalls in between")
    return UnreachableError(
        f"no HTTP ({type(reason).__name__}: {reason})",
        "see whether host and port are an S3 endpoint's, and https:// is needed",
    )


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """The first answer tells enough."""


def _head(url: str, ca_bundle: str | None, timeout_s: float) -> Answer:
    context = ssl.create_default_context(cafile=ca_bundle)
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), _NoRedirects()
    )
    # S310: of http and https only, as the configuration has checked.
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310
    began, began_at = time.monotonic(), time.time()
    try:
        with opener.open(request, timeout=timeout_s) as reply:
            headers: Message = reply.headers
    except urllib.error.HTTPError as error:  # an answer too
        headers = error.headers
        error.close()
    seconds = time.monotonic() - began
    try:
        # It is rounded down to a second, and from somewhere between question and answer.
        theirs = parsedate_to_datetime(headers["Date"]).timestamp() + 0.5
    except (TypeError, ValueError):  # there is none, or none that can be read
        return Answer(seconds, None)
    return Answer(seconds, began_at + seconds / 2 - theirs)
