"""What the recipes for operators say that no command line of theirs shows: timers, and a drill that starts servers."""

import asyncio
import re
import shutil
import subprocess

import pytest
from page_code import BLOCK, ROOT
from services import redis_servers

from jaf_memory_core import Message, create_memory_provider_from_env, digest

RECIPES = ROOT / "docs" / "recipes"


def files(page):
    """The files that a page has its reader write."""
    blocks = BLOCK.findall((RECIPES / page).read_text(encoding="utf-8"))
    return {name: block for mark, name, _, block in blocks if mark == "file"}


def test_timers_run_what_the_page_runs():
    """The line of cron and the unit of systemd call the command that stands, and is run, below them."""
    page = (RECIPES / "purge-and-retention.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"```bash\n(jaf-memory purge .*)\n```", page)
    found = files("purge-and-retention.md")
    assert f"ExecStart=/opt/chat/bin/{command}\n" in found["chat-purge.service"]
    assert f"&& /opt/chat/bin/{command} | logger " in found["crontab"]  # cron's PATH has no more than /usr/bin and /bin
    assert re.match(r"\d+ \d+ \* \* \*  chat  ", found["crontab"])


def test_units_are_read_by_systemd(tmp_path):
    """Systemd finds no mistake in the units, once their program and their user are this machine's."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not on this machine, and the units are not verified: apt-get install systemd")
    for name, text in files("purge-and-retention.md").items():
        if name.startswith("chat-purge"):
            here = text.replace("/opt/chat/bin/jaf-memory", "/bin/true").replace("User=chat", "User=root")
            (tmp_path / name).write_text(here)
    units = [str(tmp_path / "chat-purge.service"), str(tmp_path / "chat-purge.timer")]
    done = subprocess.run([program, "verify", *units], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def stored(server):
    """The digest of each conversation of a Redis server."""

    async def read():
        settings = {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_URL": f"redis://127.0.0.1:{server.port}/0"}
        async with await create_memory_provider_from_env(settings) as provider:
            if not await provider.get_conversation("chat"):
                for name in ("chat", "other"):
                    said = [Message("user", "one \0"), Message("assistant", "two")]
                    await provider.append_messages(name, said, user_id="user-123", create=True)
            return {one.conversation_id: digest(one) async for one in provider.iter_conversations()}

    return asyncio.run(read())


def test_a_snapshot_of_redis_is_restored(own_redis):
    """A copy of dump.rdb, put into a server's folder as the page says, brings every conversation back, and stays."""
    before = stored(own_redis)
    last = own_redis.command("LASTSAVE")
    own_redis.command("BGSAVE")
    dump = own_redis.folder / "dump.rdb"
    redis_servers.wait_until(lambda: own_redis.command("LASTSAVE") > last or dump.exists(), "a snapshot")
    restored = redis_servers.Server({**own_redis.settings, "appendonly": "no"})
    shutil.copy(dump, restored.folder)
    with redis_servers.running([restored]):
        assert stored(restored) == before
        restored.command("CONFIG", "SET", "appendonly", "yes")
        written = lambda: b"aof_rewrite_in_progress:0" in restored.command("INFO", "persistence")  # noqa: E731
        redis_servers.wait_until(written, "a log")
        assert b"aof_enabled:1" in restored.command("INFO", "persistence")
        restored.kill()
        again = redis_servers.Server({**own_redis.settings, "dir": restored.folder}, port=restored.port)
        with redis_servers.running([again]):
            assert stored(again) == before
