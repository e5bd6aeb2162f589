"""A program whose calls are interrupted again and again, as by a user's Ctrl-C.

Usage: python -m support.interrupted URI TIMES; FOREBAY_ADDRESS names the daemon.
"""

from __future__ import annotations

import random
import signal
import sys

import forebay

OBJECTS = 100  # the names are their numbers


def main(uri: str, times: int) -> None:
    """Print how often a call was interrupted; must end by itself."""
    shuffled = random.Random(7)
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    interrupted = 0
    client = forebay.Client()
    while interrupted < times:
        number = interrupted % OBJECTS
        try:
            signal.setitimer(signal.ITIMER_REAL, shuffled.uniform(0.0002, 0.01))
            for _ in range(40):  # the exception may come in a finalizer, which swallows it
                client.stat(f"{uri}/{number}")
                client.evict(f"{uri}/{number}")
                client.get(f"{uri}/{number}")
                list(client.list(uri))
        except BaseException as error:
            # One that comes between taking and giving back a lock becomes the lock's complaint.
            if KeyboardInterrupt not in (type(error), type(error.__context__)):
                raise
            interrupted += 1
    assert client.get(f"{uri}/0") == b"0"
    client.close()
    print(interrupted)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
