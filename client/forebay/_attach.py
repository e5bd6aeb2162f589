"""Which cache folder belongs to which daemon; one attachment per process and address.

``FOREBAY_CACHE_DIR`` names the folder; without it the daemon says where it is, and when no daemon
answers, the default place is tried: a process that starts while the daemon is down hits too.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from forebay import _version
from forebay._errors import DaemonUnavailableError, ForebayError
from forebay._shared import SharedCache
from forebay_protos import cache_pb2 as pb
from forebay_protos import layout
from forebay_protos.addresses import default_cache_dir

if TYPE_CHECKING:
    from forebay._channel import Channel

_FIRST_TRY_S = 0.3  # for a daemon that is down, before the folder is looked for without it


class Attachments:
    """What this process is attached to, by address."""

    def __init__(self) -> None:
        self._by_address: dict[tuple[str, str], SharedCache | layout.Attachment] = {}
        self._lock = threading.Lock()  # guards _by_address; held over the daemon's answer

    def get(self, channel: Channel, timeout_s: float) -> SharedCache | layout.Attachment:
        """Return the shared folder, or only the daemon's words if it cannot be reached from here.

        Raises DaemonUnavailableError if there is neither a folder nor a daemon.
        """
        key = (channel.address, os.environ.get("FOREBAY_CACHE_DIR", ""))
        known = self._by_address.get(key)
        if isinstance(known, layout.Attachment) or (known is not None and known.is_current()):
            return known
        with self._lock:
            known = self._by_address.get(key)
            if isinstance(known, SharedCache) and not known.is_current():
                known = None
            if known is None:
                known = self._by_address[key] = _attach(channel, timeout_s, key[1])
            return known

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        for known in self._by_address.values():
            if isinstance(known, SharedCache):
                known.after_fork_in_child()


def _attach(
    channel: Channel, timeout_s: float, named: str
) -> SharedCache | layout.Attachment:
    try:
        reply = _ask(channel, min(timeout_s, _FIRST_TRY_S))
    except DaemonUnavailableError:
        try:
            return SharedCache(Path(named) if named else default_cache_dir())
        except (OSError, ValueError):
            reply = _ask(channel, timeout_s)
    try:
        shared = SharedCache(Path(named or reply.cache_dir))
    except (OSError, ValueError) as error:
        if named:
            raise ForebayError(
                f"FOREBAY_CACHE_DIR={named} cannot be used as the cache folder ({error}): "
                "mount the daemon's folder there, or unset it to read through the daemon"
            ) from error
        return layout.Attachment.from_json(reply.attach_json)
    if shared.cache_id == reply.cache_id.hex():
        return shared
    shared.close()
    if named:
        raise ForebayError(
            f"FOREBAY_CACHE_DIR={named} is the folder of another daemon than the one at "
            f"{channel.address} (which uses {reply.cache_dir}): correct one of the two"
        )
    return layout.Attachment.from_json(reply.attach_json)


def _ask(channel: Channel, timeout_s: float) -> pb.AttachReply:
    request = pb.AttachRequest(client_version=_version.__version__)
    reply: pb.AttachReply = channel.unary("Attach", request, timeout_s)
    return reply


attachments = Attachments()
os.register_at_fork(after_in_child=attachments.after_fork_in_child)
