"""Free ports on the loopback interface, chosen so that sandboxes beside each other do not take the same ones."""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

LOOPBACK = "127.0.0.1"

# Below the range from which operating systems take the local port of an outgoing connection (32768 and up on Linux,
# 49152 and up elsewhere), so that no client can sit on a port between our looking and the server's binding.
_FIRST, _LAST = 15000, 32000


def free_ports(count: int) -> list[int]:
    """Return `count` different ports on which nothing listens.

    Raises
    ------
    OSError
        When the range holds too few.
    """
    chosen: list[int] = []
    candidates = random.sample(range(_FIRST, _LAST), _LAST - _FIRST)
    with ExitStack() as held:
        for port in candidates:
            if len(chosen) == count:
                return chosen
            listener = held.enter_context(socket.socket())
            if _bind(listener, port):
                chosen.append(port)
    raise OSError(f"fewer than {count} free ports between {_FIRST} and {_LAST}")


def are_free(ports: list[int]) -> bool:
    """Tell whether every one of the ports can be bound now."""
    with ExitStack() as held:
        return all(_bind(held.enter_context(socket.socket()), port) for port in ports)


def _bind(listener: socket.socket, port: int) -> bool:
    # A server that has just stopped leaves connections in TIME_WAIT, which do not keep a new one from listening.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen(1)
    except OSError:
        return False
    return True
