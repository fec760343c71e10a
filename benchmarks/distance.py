"""A line that takes its time, between a client and a server of one machine.

`python -m benchmarks.distance HOST PORT MILLISECONDS` tells its own port. In threads: a loop's timers are no finer
than a millisecond.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

CHUNK = 1 << 18


@contextlib.contextmanager
def away(host: str, port: int, milliseconds: float) -> Iterator[int]:
    """A port that leads to another, and takes so long for the way there and back together."""
    command = [sys.executable, "-m", "benchmarks.distance", host, str(port), str(milliseconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as line:
        try:
            assert line.stdout is not None
            yield int(line.stdout.readline())
        finally:
            line.kill()


def carry(source: socket.socket, sink: socket.socket, seconds: float) -> None:
    """Carry what comes from one socket to another, each piece as long after it came."""
    pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def deliver() -> None:
        with contextlib.suppress(OSError):
            while True:
                due, piece = pieces.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not piece:
                    sink.shutdown(socket.SHUT_WR)
                    return
                sink.sendall(piece)

    threading.Thread(target=deliver, daemon=True).start()
    with contextlib.suppress(OSError):
        while piece := source.recv(CHUNK):
            pieces.put((time.monotonic() + seconds, piece))
    pieces.put((time.monotonic() + seconds, b""))


def main() -> None:
    """Listen, tell the port, and carry until this is ended."""
    host, port, milliseconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    if sys.platform == "linux":
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # not in the client's way alone
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((host, port))
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for ends in ((near, far), (far, near)):
                threading.Thread(target=carry, args=(*ends, milliseconds / 2_000), daemon=True).start()


if __name__ == "__main__":
    main()
