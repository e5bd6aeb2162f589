"""What systemd is told: when the daemon serves, when it stops, and that its event loop turns.

The protocol of sd_notify(3): lines in a datagram to ``NOTIFY_SOCKET``, and nothing without that
variable. It is as short as the call of a library; those for Python are old, or need libsystemd.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)


class Notifier:
    """Tells the service manager that has started this process, if there is one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL at the start of an abstract socket's name.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog_us = 0
        if environment.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()):
            self._watchdog_us = int(environment.get("WATCHDOG_USEC", "0"))
        self._beating: asyncio.Task[None] | None = None  # referred to, or it might be collected

    def ready(self) -> None:
        """Say that it serves. From now on the event loop feeds the watchdog, if there is one."""
        self._send("READY=1\nSTATUS=serving")
        if self._address and self._watchdog_us:
            self._beating = asyncio.create_task(self._beat(self._watchdog_us / 2e6))

    def stopping(self) -> None:
        """Say that it stops. The watchdog is fed until the event loop ends."""
        self._send("STOPPING=1\nSTATUS=stopping: uploads what it can")

    async def _beat(self, every_s: float) -> None:
        while True:
            self._send("WATCHDOG=1")
            await asyncio.sleep(every_s)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.settimeout(1)  # a manager that reads nothing must not stop the daemon
                sender.sendto(text.encode(), self._address)
        except OSError as error:
            log.warning("the service manager was not told", extra={"reason": str(error)})
