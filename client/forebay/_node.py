"""This process's side of one daemon: the channel to it and, where it can be reached, its folder.

Shared by all Clients of the process with that address. The folder is used without the daemon once
its ``attach.json`` has been read; whether it is the folder of the daemon that answers at the
address is asked as soon as one does, and if it is not, everything goes through the daemon.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay._channel import Channel
from forebay._errors import DaemonUnavailableError, DeadlineExceededError, ForebayError
from forebay._folder import Folder
from forebay._staging import Staging
from forebay._version import __version__
from forebay_protos import addresses, layout
from forebay_protos import cache_pb2 as pb

if TYPE_CHECKING:
    from forebay._counters import Counters

log = logging.getLogger(__name__)

_QUICK_TIMEOUT_S = 2.0  # for asking a daemon without which hits are possible
_ASK_AGAIN_NS = 1_000_000_000  # while it is not known whose the folder is
_LOOK_AGAIN_NS = 10_000_000_000  # whether a remote daemon's folder can be reached by now


@dataclass(frozen=True, slots=True)
class State:
    """What is known now."""

    folder: Folder | None = None
    attachment: layout.Attachment | None = None  # None until a folder or a daemon was found
    verified_id: str = ""  # the cache id of the daemon that answered last


class Node:
    """One address. Thread-safe."""

    def __init__(self, address: str, cache_dir: str | None) -> None:
        self.channel = Channel(address)
        self._cache_dir = cache_dir  # told by the user, wins over what the daemon says
        self._known_dir = cache_dir or (
            # Only there: another daemon's folder may hold another cluster's bytes for the same URI.
            str(addresses.default_cache_dir()) if addresses.is_default(address) else None
        )
        self._lock = threading.Lock()  # held while attaching; no other lock is taken inside
        self._ask_again_ns = 0
        self.users = 0  # Clients that are not closed
        self.state = State()
        self.staging = Staging(self)
        _nodes_alive.add(self)

    def folder(self) -> Folder | None:
        """Return the folder, current as of this lease, or None if hits are not possible (now)."""
        state = self.state
        now = time.monotonic_ns()
        if (
            state.folder is not None
            and state.folder.attachment.cache_id == state.verified_id
            and state.folder.is_current(time.time_ns())
        ):
            return state.folder
        with self._lock:
            state = self.state
            folder = state.folder
            if folder is not None and not folder.is_current(time.time_ns()):
                folder = self._open(folder.path, folder.counters)
                state = State(folder, folder.attachment if folder else None, state.verified_id)
                self.state = state
                if folder is None or folder.attachment.cache_id != state.verified_id:
                    self._ask_again_ns = 0
            if now >= self._ask_again_ns and (
                folder is None or folder.attachment.cache_id != state.verified_id
            ):
                try:
                    self._attach(_QUICK_TIMEOUT_S, wait=False)
                except (DaemonUnavailableError, DeadlineExceededError):
                    self._ask_again_ns = time.monotonic_ns() + _ASK_AGAIN_NS
                    self._attach_without_daemon()
            return self.state.folder

    def attachment(self, timeout_s: float) -> layout.Attachment:
        """Return the daemon's mapping and origins, waiting for it if need be."""
        self.folder()
        attachment = self.state.attachment
        if attachment is None:
            with self._lock:
                if self.state.attachment is None:
                    self._attach(timeout_s, wait=True)
                attachment = self.state.attachment
        assert attachment is not None  # noqa: S101  # _attach sets it or raises
        return attachment

    def doubt(self) -> None:
        """Ask the daemon again whose the folder is: it filled something that is not to be seen."""
        state = self.state
        self._ask_again_ns = 0
        self.state = State(state.folder, state.attachment, "")

    def _attach(self, timeout_s: float, *, wait: bool) -> None:
        """Ask the daemon. Raises ForebayError if it does not answer."""
        request = pb.AttachRequest(client_version=__version__)
        reply = self.channel.call("Attach", request, timeout_s, wait=wait)
        cache_id = reply.cache_id.hex()
        self._known_dir = self._cache_dir or reply.cache_dir
        folder = self.state.folder
        if (
            folder is None
            or folder.path != self._known_dir
            or (folder.attachment.cache_id != cache_id or not folder.is_current(time.time_ns()))
        ):
            folder = self._open(self._known_dir, folder.counters if folder else None)
        if folder is not None and folder.attachment.cache_id != cache_id:
            log.info("the daemon's cache folder is another", extra={"cache_dir": folder.path})
            folder = None
        try:
            attachment = layout.Attachment.from_json(reply.attach_json)
        except ValueError as error:
            raise ForebayError(f"{self.channel.address}: {error}") from error
        self.state = State(folder, folder.attachment if folder else attachment, cache_id)
        self._ask_again_ns = time.monotonic_ns() + _LOOK_AGAIN_NS

    def _attach_without_daemon(self) -> None:
        if self.state.folder is None and self._known_dir is not None:
            folder = self._open(self._known_dir, None)
            if folder is not None:
                self.state = State(folder, folder.attachment, self.state.verified_id)

    @staticmethod
    def _open(path: str, counters: Counters | None) -> Folder | None:
        if counters is not None and not counters.is_in(f"{path}/{layout.COUNTERS}"):
            counters.close()
            counters = None
        for _ in range(3):  # a table that grows between two of the files is another try
            try:
                return Folder(path, counters)
            except FileNotFoundError:  # noqa: PERF203
                continue
            except (OSError, ValueError) as error:
                log.info("cannot share the cache folder", extra={"reason": str(error)})
                return None
        return None

    def close(self) -> None:
        """Leave; the last user closes the channel and gives the row of counters back."""
        with self._lock:
            self.users -= 1
            if self.users > 0:
                return
            folder, self.state = self.state.folder, State()
            self._ask_again_ns = 0  # for whoever comes next
            if folder is not None:
                folder.counters.close()
        self.staging.forget()
        self.channel.close()

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        if self.state.folder is not None:
            self.state.folder.after_fork_in_child()
        self.staging.after_fork_in_child()


_nodes: dict[tuple[str, str | None], Node] = {}  # for ever: a process has one or two
_nodes_lock = threading.Lock()
_nodes_alive: weakref.WeakSet[Node] = weakref.WeakSet()


def node_at(address: str, cache_dir: str | None) -> Node:
    """Return this process's Node of an address, with one user more: call ``close`` once."""
    with _nodes_lock:
        node = _nodes.get((address, cache_dir))
        if node is None:
            node = _nodes[address, cache_dir] = Node(address, cache_dir)
        node.users += 1
        return node


def _after_fork_in_child() -> None:
    global _nodes_lock
    _nodes_lock = threading.Lock()
    for node in _nodes_alive:
        node.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
