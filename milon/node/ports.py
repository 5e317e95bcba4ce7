"""Finds TCP ports that nobody uses, for a network on one machine."""

from __future__ import annotations

import contextlib
import random
import socket

from milon.base.errors import Reason, Rejected

# Below 32768, where Linux starts to hand out ports to outgoing connections: a port found here stays free.
_FIRST, _END = 20_000, 32_000
_TRIES_MAX = 2_000


def find_free_ports(count: int) -> tuple[int, ...]:
    """`count` different ports of 127.0.0.1 that could be bound just now; `Rejected(FULL)` where there are too few."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for _ in range(_TRIES_MAX):
            if len(found) == count:
                return tuple(found)
            port = random.SystemRandom().randrange(_FIRST, _END)
            candidate = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            with contextlib.suppress(OSError):
                candidate.bind(("127.0.0.1", port))
                found.append(port)
    raise Rejected(Reason.FULL, f"found no {count} free ports from {_FIRST} to {_END} on this machine")
