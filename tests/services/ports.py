"""Ports for servers, each for one server alone, also while it is down."""

import contextlib
import random
import socket

PORTS = range(11_000, 20_000)
"""Below those that systems give to outgoing connections: one of these would take the port of a server that is down, and
one to that very port could meet itself. A Cluster's second ports, 10,000 higher, lie below them as well."""


def free_port() -> int:
    """A port that nobody listens on, and that no other process is given while this one lives."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.ExitStack() as held:
            try:
                # The mark that it is taken: nobody speaks UDP here, and the system lets go of it with this process.
                mark = held.enter_context(_bound(port, socket.SOCK_DGRAM))
                _bound(port).close()
                _bound(port + 10_000).close()
            except OSError:
                continue
            mark.detach()
            return port
    raise RuntimeError("no port is free")


def _bound(port: int, kind: int = socket.SOCK_STREAM) -> socket.socket:
    made = socket.socket(type=kind)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made
