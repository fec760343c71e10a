"""SQLite's threads, run inline: a turn of a worker is a step of the simulated loop, at a moment that the seed picks."""

import asyncio
import collections
import contextlib
import queue
import threading
import types
from unittest import mock

from jaf_memory_sqlite.connection import worker

from simulation import engine


class _Thread:
    """Instead of a thread: what wakes it does its turn."""

    def __init__(self, target, name, daemon):
        self._worker = target.__self__
        self._ended = False

    def start(self):
        """The queue of the worker knows from now on whom to wake."""
        self._worker.queue.wake = self._turn

    def _turn(self):
        one = self._worker
        while not self._ended and not one.queue.empty():
            one._turn()
            if one._last_turn:
                self._ended = True
                one._run()  # what is left of it: no more turns, the connection is closed, farewells are said

    def join(self, timeout=None):
        """Nobody has to wait for it."""


class _Queue:
    """The worker's queue, which has somebody do its turn a while after something was put there."""

    def __init__(self):
        self._waiting = collections.deque()
        self.wake = None

    def put(self, jobs):
        """Leave something; the turn comes at once, or behind what others do meanwhile."""
        self._waiting.append(jobs)
        with contextlib.suppress(RuntimeError):  # nobody's loop runs: the provider was forgotten
            asyncio.get_running_loop().call_later(engine.randint(0, 3) / 1000, self.wake)

    def get(self, block, timeout):
        """What was left first."""
        if not self._waiting:
            raise queue.Empty
        return self._waiting.popleft()

    def empty(self):
        """Whether nothing waits."""
        return not self._waiting


@contextlib.contextmanager
def inline():
    """Within, workers that are made have no thread."""
    threads = types.SimpleNamespace(Lock=threading.Lock, RLock=threading.RLock, Thread=_Thread)
    queues = types.SimpleNamespace(SimpleQueue=_Queue, Empty=queue.Empty)
    with mock.patch.object(worker, "threading", threads), mock.patch.object(worker, "queue", queues):
        yield
