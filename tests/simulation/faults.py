"""Faults put on purpose into copies of our own code: the simulation has to find each of them.

A fault is a place in the text of one file, and what stands there instead. The copy comes before the installed package
on the path of a process of its own, which runs schedules until one shows the fault.
"""

import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

TESTS = Path(__file__).parents[1]

PACKAGES = {
    "core": "jaf_memory_core",
    "redis": "jaf_memory_redis",
    "sqlite": "jaf_memory_sqlite",
    "postgres": "jaf_memory_postgres",
    "bridges": "jaf_memory_bridges",
}


@dataclasses.dataclass(frozen=True)
class Fault:
    """A fault, and where it shows.

    Attributes:
        name: what goes wrong.
        store: on which store it is looked for.
        scenario: in which scenario.
        package: a key of `PACKAGES`.
        file: path within the package.
        old: what stands there once.
        new: what stands there instead.
    """

    name: str
    store: str
    scenario: str
    package: str
    file: str
    old: str
    new: str


def _in(store, package, file):
    """Faults of one file, as tuples of name, scenario, old, new."""

    def made(*faults):
        return [Fault(name, store, scenario, package, file, old, new) for name, scenario, old, new in faults]

    return made


FAULTS = [
    *_in("redis", "redis", "connection.py")(
        (
            "a cancelled caller takes its place in the order of replies along",
            "append",
            "        self._waiting.append(_Waiting(future, count))\n        return future\n",
            (
                "        waiting = _Waiting(future, count)\n        self._waiting.append(waiting)\n"
                "        future.add_done_callback(\n"
                "            lambda done: self._waiting.remove(waiting) if done.cancelled() and waiting in self._waiting"
                " else None\n        )\n        return future\n"
            ),
        ),
        (
            "a reply goes to the last who asked",
            "append",
            "                first = waiting[0]\n",
            (
                "                first = waiting[-1]\n                waiting.remove(first)\n"
                "                waiting.appendleft(first)\n"
            ),
        ),
        (
            "what was lost behind its sending is told as never sent",
            "anything",
            "            is_sent = len(self._waiting) > unsent\n",
            "            is_sent = False\n",
        ),
        (
            "nobody is told of a lost connection",
            "append",
            "                waiting.future.set_exception(problem)",
            "                pass",
        ),
        (
            "half a reply is taken for a whole one",
            "append",
            "                    if reply is False:  # RESP2 has no false of its own\n                        return\n",
            "                    if reply is False:\n                        reply = None\n",
        ),
    ),
    *_in("redis", "redis", "pool.py")(
        (
            "a lost connection is used again",
            "append",
            "            if connection.has_room(self._crowded):\n                return connection\n",
            "            return connection\n",
        ),
        (
            "a connection that was opened meanwhile is left behind close()",
            "closing",
            "        if self._dropped is not None:\n",
            "        if False:\n",
        ),
        (
            "scripts that the server does not know are not sent again",
            "restart",
            "        if unknown and connection.lost is None:\n",
            "        if False:\n",
        ),
    ),
    *_in("redis", "redis", "connector.py")(
        (
            "a connection is left standing whose caller is cancelled behind the handshake",
            "append",
            '        except BaseException:\n            connection.drop("it was not waited for")\n            raise\n',
            "        except ZeroDivisionError:\n            raise\n",
        ),
    ),
    *_in("redis", "redis", "scripts/write.lua")(
        ("an append is not idempotent", "append", "if adding and not placed then\n", "if false then\n"),
        (
            "the expected version is not looked at",
            "versions",
            "local expected = not request.expected or request.expected == actual\n",
            "local expected = true\n",
        ),
        (
            "a conversation is made that nobody wanted made",
            "absence",
            "  if not request.create then return { 'missing' } end\n  if SINGLE",
            "  if SINGLE",
        ),
        ("a store keeps the old messages", "anything", "if before and request.replace then\n", "if false then\n"),
        (
            "a store forgets the version",
            "anything",
            "header.owner = owner\n",
            "if request.replace then header.version = 1 end\nheader.owner = owner\n",
        ),
        ("an owner is not kept", "erasure", "header.owner = owner\n", "header.owner = before and before.owner\n"),
        (
            "the last body of a batch is lost",
            "append",
            "local size, length = add_bodies(list, first, fresh)\n",
            "local size, length = add_bodies(list, first, math.max(fresh - 1, 1))\n",
        ),
    ),
    *_in("redis", "redis", "scripts/append.lua")(
        (
            "the usual append is not idempotent",
            "append",
            "redis.pcall('ZADD', KEYS[3], 'NX', unpack(places))\n    if added == given then\n      if call('ZCARD', KEYS[3]) == longer then\n",
            "redis.pcall('ZADD', KEYS[3], unpack(places))\n    if added then\n      if added then\n",
        ),
        (
            "the usual append does not look at the expected version",
            "versions",
            "  and (not request.expected or request.expected == version) and",
            "  and",
        ),
    ),
    *_in("redis", "redis", "scripts/truncate.lua")(
        (
            "one message too many is removed",
            "anything",
            "local kept = rare.place(header, tonumber(position))\n",
            "local kept = math.max(rare.place(header, tonumber(position)) - 1, 0)\n",
        ),
        (
            "a truncation leaves the ids of what it removed",
            "anything",
            "  call('ZREMRANGEBYSCORE', KEYS[3], position, '+inf')\n",
            "",
        ),
    ),
    *_in("redis", "redis", "scripts/revise.lua")(
        (
            "a revision forgets that somebody wrote in between",
            "anything",
            "if not before or rare.stamp(before) ~= request.expected then",
            "if not before then",
        ),
    ),
    *_in("redis", "redis", "operations/erasure.py")(
        (
            "an erasure leaves one conversation out",
            "erasure",
            "            await together(entries, forget)\n",
            "            await together(entries[:1], forget)\n            return\n",
        ),
        (
            "an erasure goes by what it saw, whoever owns it by now",
            "erasure",
            "            alive = await self._removed(conversation_id, scope=user_id, named=True)\n",
            "            alive = await self._removed(conversation_id, expired=True)\n",
        ),
    ),
    *_in("redis", "core", "guard.py")(
        (
            "a lost answer is told as not applied",
            "anything",
            "        problem.provider = problem.provider or self.backend.name\n",
            '        problem.provider = problem.provider or self.backend.name\n        problem.outcome = "not_applied"\n',
        ),
        (
            "whatever was lost is sent again",
            "truncation",
            '        if not (retry and error.retryable and (self._repeatable or error.outcome == "not_applied")):\n',
            "        if not (retry and error.retryable):\n",
        ),
    ),
    *_in("postgres", "core", "guard.py")(
        ("an operation has no deadline", "append", "            with attempt:\n", "            if True:\n"),
        (
            "a time-out is told as not applied",
            "revision",
            '            outcome="not_applied" if unsent else "unknown",\n',
            '            outcome="not_applied",\n',
        ),
    ),
    *_in("postgres", "core", "deadline.py")(
        ("the deadline never rings", "append", "            deadline.expire()\n", "            pass\n"),
    ),
    *_in("sqlite", "sqlite", "connection/writer.py")(
        (
            "a group is done again though it has committed",
            "anything",
            (
                "        self._logged += len(jobs)\n        if self._logged >= LOG:\n            self.queue.put([])"
                "  # wakes the thread, which tidies\n        return True\n"
            ),
            "        return False\n",
        ),
        (
            "whoever has been cancelled takes the others' commit along",
            "anything",
            "        if not job.begun:\n            self._empty(waiting)\n",
            "        if not job.begun and waiting[0] is job:\n            self._empty(waiting)\n",
        ),
        (
            "a group's answers come before its commit fails",
            "anything",
            '            db.execute("COMMIT")\n',
            '            db.execute("ROLLBACK" if len(jobs) > 2 else "COMMIT")\n',
        ),
        (
            "a cancelled caller is told to nobody, and its job is done twice",
            "anything",
            "        jobs = [job for job in waiting if not job.begun]\n        waiting.clear()\n",
            "        jobs = list(waiting)\n        waiting.clear()\n",
        ),
    ),
    *_in("sqlite", "sqlite", "statements.sql")(
        (
            "an erasure leaves what is long",
            "erasure",
            "DELETE FROM conversation WHERE user_id = ?\n",
            "DELETE FROM conversation WHERE user_id = ? AND message_count < 3\n",
        ),
        (
            "a page is read beyond the conversation's end",
            "anything",
            "SELECT CAST(body AS BLOB) FROM message WHERE id >= ? AND id < ? ORDER BY id\n",
            "SELECT CAST(body AS BLOB) FROM message WHERE id >= ? AND id <= ? ORDER BY id DESC\n",
        ),
    ),
    *_in("sqlite", "sqlite", "operations/writes.py")(
        (
            "an append is not idempotent",
            "append",
            "        return None\n    kept = _save(db, live, plan, request)\n",
            "        pass\n    kept = _save(db, live, plan, request)\n",
        ),
        (
            "a store keeps the old messages",
            "anything",
            '    if request.replace:\n        db.execute(SQL["drop"]',
            '    if False:\n        db.execute(SQL["drop"]',
        ),
    ),
    *_in("sqlite", "sqlite", "connection/worker.py")(
        (
            "a job's answer goes to another",
            "anything",
            "        self.future.set_result(self.result)",
            "        self.future.set_result(None)",
        ),
        (
            "a worker stops with jobs in its queue",
            "closing",
            "            if not self.stopped:\n                self.stopped = True\n                self.queue.put(None)\n",
            "            if not self.stopped:\n                self.stopped = True\n                self._last_turn = True\n",
        ),
    ),
    *_in("memory", "core", "rules.py")(
        (
            "an append with a version is refused before it is recognised",
            "repetition",
            "    if header is not None and not write.replace and not fresh and (write.messages or not _labels(header, write)):\n",
            "    if write.expected_version is None and header is not None and not fresh and write.messages:\n",
        ),
        (
            "the version does not grow",
            "versions",
            "        version=base.version + 1,\n        updated_at=base.updated_at if settled",
            "        version=base.version + write.replace,\n        updated_at=base.updated_at if settled",
        ),
    ),
    *_in("postgres", "postgres", "connection/execution.py")(
        (
            "a connection goes back to the pool with a transaction open",
            "anything",
            "        await pool.cancel(pooled)\n        raise\n",
            "        await pool.release(pooled)\n        raise\n",
        ),
    ),
    *_in("postgres", "postgres", "connection/groups.py")(
        (
            "an answer goes to another member of its group",
            "groups",
            "        _tell(group, answers)\n",
            "        _tell(group, [*answers[1:], *answers[:1]])\n",
        ),
        (
            "who is told by a group is told before its commit",
            "groups",
            "        answers = await self._ask(connection, [member.request for member in members])\n",
            (
                "        if self._key is not None:\n"
                "            from jaf_memory_core.results import WriteResult\n"
                "            _tell(group, [WriteResult(1, 1, 1) for _ in members])\n"
                "        answers = await self._ask(connection, [member.request for member in members])\n"
            ),
        ),
    ),
    *_in("postgres", "postgres", "statements.sql")(
        (
            "a header is read without its lock",
            "anything",
            "WHERE header.conversation_id = $1 FOR UPDATE\n",
            "WHERE header.conversation_id = $1\n",
        ),
        (
            "the expected version is not looked at",
            "versions",
            "    AND ($4::bigint IS NULL OR header.version = $4)\n",
            "    AND ($4::bigint IS NULL OR header.version >= $4)\n",
        ),
    ),
    *_in("postgres", "postgres", "connection/execution.py")(
        (
            "a turn is lost with its caller",
            "crowd",
            "                if turn.done() and not turn.cancelled():  # it was given the turn, and will not use it\n",
            "                if False:\n",
        ),
    ),
    *_in("postgres", "postgres", "connection/pool.py")(
        (
            "a connection is lost with its caller",
            "crowd",
            "                    self._pass_on(waiter.result())\n",
            "                    pass\n",
        ),
    ),
    *_in("sqlite", "sqlite", "operations/writes.py")(
        (
            "a fork copies one message too few",
            "fork",
            "    first, end = parent.row_of(parent.record.first_position), _end(db, parent, request)\n",
            "    first, end = parent.row_of(parent.record.first_position), _end(db, parent, request) - 1\n",
        ),
    ),
    *_in("sqlite", "sqlite", "statements.sql")(
        (
            "what has not expired is purged",
            "expiry",
            "DELETE FROM conversation WHERE id IN (SELECT id FROM conversation WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)\n",
            (
                "DELETE FROM conversation WHERE id IN (SELECT id FROM conversation"
                " WHERE coalesce(expires_at, 0) <= ? ORDER BY expires_at LIMIT ?)\n"
            ),
        ),
    ),
    *_in("sqlite", "sqlite", "operations/queries.py")(
        (
            "a page begins with the last of the page before",
            "paging",
            '[(f"({column}, conversation_id) < (?, ?)", [micros(cursor[0]), cursor[1]])]\n',
            '[(f"({column}, conversation_id) <= (?, ?)", [micros(cursor[0]), cursor[1]])]\n',
        ),
    ),
    *_in("sqlite", "core", "provider/summaries.py")(
        (
            "a condensed conversation leaves a message out",
            "summary",
            "            left = end - start\n",
            "            left = end - start - 1\n",
        ),
    ),
    *_in("disk", "sqlite", "connection/__init__.py")(
        (
            "a commit is not waited for",
            "revision",
            '        db.execute(f"PRAGMA synchronous = {self._synchronous}")\n',
            '        db.execute("PRAGMA synchronous = OFF")\n',
        ),
    ),
    *_in("postgres", "postgres", "connection/execution.py")(
        (
            "a commit whose answer is lost is told as refused",
            "anything",
            '    await connection.execute("COMMIT")\n',
            (
                '    try:\n        await connection.execute("COMMIT")\n    except (OSError, asyncpg.InterfaceError, '
                "asyncpg.PostgresConnectionError) as error:\n"
                '        raise MemoryConnectionError("refused", outcome="not_applied") from error\n'
            ),
        ),
    ),
    *_in("postgres", "postgres", "operations/bulk.py")(
        (
            "an import leaves the last message out",
            "transfer",
            "                records=_messages([(row, new[key][1]) for key, row in made.items()]),\n",
            "                records=list(_messages([(row, new[key][1]) for key, row in made.items()]))[:-1],\n",
        ),
    ),
    *_in("memory", "bridges", "jaf/writes.py")(
        (
            "a run that finds its conversation grown is left out",
            "runs",
            "        create = found.loaded is None\n",
            "        create = found.loaded is None\n        if not create:\n            return\n",
        ),
    ),
    *_in("cluster", "redis", "topology.py")(
        (
            "answers of a node that is asked in place of another are out of step",
            "anything",
            "        return replies[1::2] if asking else replies\n",
            "        return replies[::2] if asking else replies\n",
        ),
    ),
    *_in("redis", "redis", "scripts/thin.lua")(
        (
            "a deleted message is still known by its id",
            "deletion",
            "call('ZREM', KEYS[3], unpack(gone, start, math.min(start + STEP - 1, #gone))) end\nend\nheader.count",
            "call('ZREM', KEYS[3], gone[start]) end\nend\nheader.count",
        ),
        (
            "a deletion takes what is behind its last message along",
            "deletion",
            "    if among[from + offset - 1] then\n",
            "    if among[from + offset - 1] or among[from + offset - 2] then\n",
        ),
    ),
    *_in("redis", "redis", "scripts/make.lua")(
        (
            "an import takes the place of what stands there",
            "transfer",
            "  if call('EXISTS', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) == 0 then\n",
            "  if call('UNLINK', KEYS[key], KEYS[key + 1], KEYS[key + 2], KEYS[key + 3]) then\n",
        ),
    ),
    *_in("sqlite", "sqlite", "operations/erasure.py")(
        (
            "a deletion tells of more than it did",
            "deletion",
            "    touch(db, standing, after, standing.size - removed, standing.largest)\n    relabel(db, standing, after)\n    return len(found)\n",
            "    touch(db, standing, after, standing.size - removed, standing.largest)\n    relabel(db, standing, after)\n    return len(request.ids)\n",
        ),
    ),
]


def run(fault, schedules, seed=1):
    """Run schedules on a copy of our code that has the fault.

    Returns:
        how many schedules it took to find it, or `None`.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = PACKAGES[fault.package]
        copy = Path(folder) / package
        shutil.copytree(Path(find_spec(package).origin).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
        put_into(copy, fault)
        command = [sys.executable, "-m", "simulation", "--store", fault.store, "--scenario", fault.scenario]
        command += ["--schedules", str(schedules), "--seed", str(seed)]
        environ = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{TESTS}", "PYTHONDONTWRITEBYTECODE": "1"}
        ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, cwd=folder)
    found = re.search(r"after (\d+) runs?", ended.stdout)
    if found is None and ended.returncode:
        raise RuntimeError(f"{fault.name}: {ended.stdout[-1500:]}{ended.stderr[-3000:]}")
    return int(found[1]) if found else None


def put_into(copy, fault):
    """Write the fault into a copy of the package."""
    file = copy / fault.file
    text = file.read_text()
    if text.count(fault.old) != 1:
        raise ValueError(f"{fault.name}: its place stands {text.count(fault.old)} times in {fault.file}")
    file.write_text(text.replace(fault.old, fault.new))
