"""No operation keeps a Redis server from serving others, whatever the conversation's size."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from services import redis_servers

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT))  # last: packages that are installed are those under test

pytestmark = pytest.mark.skipif(
    os.environ.get("JAF_TEST_INSTALLED") == "wheels", reason="the program that measures is in no wheel"
)

from benchmarks import redis_stalls

MEGABYTES, ROUNDS = 30, 3
SLOW = 25
"""Milliseconds, five times what no command takes on a quiet machine; at once, these took 40 to 1,000."""

BUSY = "local n = 0 while n < 30000000 do n = n + 1 end return n"
"""A script that keeps a server for some tenths of a second."""


def test_the_server_is_not_kept():
    """No command of ours takes long, whatever is done to a conversation of 30 MB."""
    slow = None
    for _ in range(ROUNDS):  # what is slow each time is so by itself, and not by the machine's load
        found = redis_stalls.better_of(MEGABYTES, 1)
        assert {one.operation for one in found} >= {"fork near the start", "erase a user", "iterate, with messages"}
        some = {one.operation for one in found if one.longest > SLOW}
        slow = some if slow is None else slow & some
        if not slow:
            break
    assert not slow


def test_a_server_that_is_kept_is_seen():
    """The program shows a command that keeps the server, by both of its figures."""

    async def busy():
        await asyncio.to_thread(server.command, "EVAL", BUSY, 0)

    with redis_servers.single() as server, redis_stalls.Watch(server).running() as watch:
        asyncio.run(watch.over("busy", busy()))
        (found,) = watch.found
    assert found.command == "EVAL"
    assert found.longest > SLOW
    assert found.waited > SLOW
