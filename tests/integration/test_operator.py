"""What a text can do to whoever runs the service: nothing, in a terminal, in a log and in metrics."""

import asyncio
import logging
import os
import re
import socketserver
import sqlite3
import subprocess
import sys
import threading
import unicodedata
from contextlib import closing, suppress

import pytest
from jaf_memory_encryption import DataKeys, Encryption, KeyFile, KeyRing
from jaf_memory_otel import Telemetry
from jaf_memory_redaction import Redaction
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from jaf_memory_core import (
    BackendProvider,
    MemoryError,
    MemoryQuery,
    Message,
    MessageSearch,
    create_memory_provider_from_env,
)
from jaf_memory_core.backends.in_memory import InMemoryBackend

EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\r\n2026-01-01 INFO all is well\u2028\u202eevil\x7f\x08"
"""Clears a screen, retitles and colours it, begins a line of its own in a log, turns the direction of writing."""

RING = "0" * 43 + "="


def obeyed(text):
    """The characters of a text that a terminal or a reader of logs would obey."""
    return [one for one in text if unicodedata.category(one) in ("Cc", "Zl", "Zp") or "\u202a" <= one <= "\u202e"]


def shown(environ, *words):
    """What a command writes, but for the ends of its own lines."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    line = [sys.executable, "-m", "jaf_memory_cli", *words]
    ran = subprocess.run(line, env={**kept, **environ}, capture_output=True, check=False, timeout=300)
    assert b"Traceback" not in ran.stderr
    return (ran.stdout + ran.stderr).decode()


@pytest.fixture
def environ(tmp_path):
    """A sealed SQLite store, full of such texts."""
    folder = tmp_path / "store \x1b[2J\u202e"
    folder.mkdir()
    variables = {
        "JAF_MEMORY_TYPE": "sqlite",
        "JAF_SQLITE_PATH": str(folder / "chat.db"),
        "JAF_MEMORY_PLUGINS": "encryption",
        "JAF_ENCRYPTION_KEYS": f"k:{RING}",
        "JAF_ENCRYPTION_DATA_KEYS": str(folder / "keys.db"),
    }
    KeyFile(folder / "keys.db").make()

    async def fill():
        async with await create_memory_provider_from_env(variables) as provider:
            for number in range(2):
                messages = [
                    Message(role="user", content=f"find {EVIL}", name=EVIL),
                    Message(
                        role="assistant",
                        tool_calls=[{"id": EVIL, "function": {"name": EVIL, "arguments": EVIL}}],
                    ),
                ]
                metadata = {EVIL: EVIL, "title": EVIL}
                await provider.store_messages(f"{number}{EVIL}", messages, metadata, user_id=f"u{EVIL}")

    asyncio.run(fill())
    with closing(sqlite3.connect(folder / "keys.db")) as db, db:
        db.execute("INSERT INTO data_key VALUES (?, ?, ?, ?)", (f"id{EVIL}", f"w{EVIL}", f"ring{EVIL}", b"x"))
    return variables


COMMANDS = [
    ("list", "--preview"),
    ("show", f"0{EVIL}"),
    ("show", f"missing{EVIL}"),
    ("search", "find"),
    ("users",),
    ("stats", "--user", f"u{EVIL}"),
    ("info",),
    ("doctor",),
    ("keys", "show"),
    ("keys", "rotate"),
    ("keys", f"what{EVIL}"),
    ("rename", f"0{EVIL}", EVIL),
    ("delete", f"0{EVIL}", "--yes"),
    ("forget-user", f"u{EVIL}", "--shred", "--yes"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: re.sub(r"[^a-z -]", "", " ".join(words))[:20])
def test_commands(environ, words):
    """No command lets a stored text, an id, a name in the file of keys or a path do anything to the terminal."""
    text = shown(environ, *words).replace("\n", "")
    assert text
    assert not obeyed(text), repr(text)


def test_commands_where_keys_do_not_fit(environ):
    """What is told of conversations that cannot be opened does nothing either."""
    other = {**environ, "JAF_ENCRYPTION_KEYS": f"k:{'1' * 43}="}
    for words in (("list", "--preview"), ("show", f"0{EVIL}"), ("export", "-"), ("search", "find")):
        text = shown(other, *words).replace("\n", "")
        assert text
        assert not obeyed(text), repr(text)


class _Server(socketserver.BaseRequestHandler):
    """A server that answers everything with an error that is none."""

    def handle(self):
        """Answer until nobody asks any more."""
        evil = EVIL.replace("\r\n", "\x0b").encode()
        with suppress(OSError):
            while self.request.recv(65536):
                self.request.sendall(b"-ERR " + evil + b"\r\n")


@pytest.fixture
def evil_server():
    """The port of a server that means harm."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Server) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_doctor_watch(evil_server):
    """What a server says stands in the terminal as text."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("JAF_")}
    variables = {"JAF_MEMORY_TYPE": "redis", "JAF_REDIS_URL": f"redis://127.0.0.1:{evil_server}/0"}
    line = [sys.executable, "-m", "jaf_memory_cli", "doctor", "--watch", "0.1"]
    with subprocess.Popen(line, env={**kept, **variables}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as ran:
        said = ran.stdout.readline() + ran.stdout.readline()
        ran.send_signal(2)
        said += ran.communicate(timeout=60)[0]
    text = said.decode().replace("\n", "")
    assert "not healthy" in text
    assert not obeyed(text), repr(text)


def test_logs(evil_server, environ, caplog):
    """Whatever is logged of servers, ids and damage is a line each, and nothing in it is obeyed."""
    caplog.set_level(logging.DEBUG)

    async def main():
        redis = {
            "JAF_MEMORY_TYPE": "redis",
            "JAF_REDIS_URL": f"redis://127.0.0.1:{evil_server}/0",
            "JAF_REDIS_RECONNECT_TIMEOUT": "0",
            f"JAF_REDIS_{EVIL}": EVIL,
        }
        with pytest.raises(MemoryError) as refused:
            await create_memory_provider_from_env(redis)
        texts = [str(refused.value)]
        wrong = {**environ, "JAF_ENCRYPTION_KEYS": f"k:{'1' * 43}="}
        async with await create_memory_provider_from_env(wrong) as provider:
            assert await provider.find_conversations(MemoryQuery(), on_damaged="skip") == []
            await provider.search_messages(MessageSearch("find"), on_damaged="skip")
            for ask in (
                provider.get_conversation(f"0{EVIL}"),
                provider.get_recent_messages(f"missing{EVIL}"),
                provider.update_metadata(f"0{EVIL}", {EVIL: EVIL}),
                provider.revise_messages(f"0{EVIL}", {EVIL: Message(role="user", content=EVIL)}),
                provider.find_conversations(MemoryQuery(metadata={EVIL: EVIL})),
            ):
                with pytest.raises(MemoryError) as told:
                    await ask
                texts.append(str(told.value))
        return texts

    texts = asyncio.run(main())
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("jaf_memory")]
    assert any("all is well" in line for line in ours)
    for text in (*texts, *ours):
        assert not obeyed(text), repr(text)


def test_metrics():
    """However many ids, owners, texts and kinds of errors there are, metrics have few series, with names of ours."""
    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])

    class Failing(InMemoryBackend):
        waits = True
        fails = None

        async def tail(self, tail):
            if self.fails is not None:
                raise self.fails
            return await super().tail(tail)

    async def main():
        backend = Failing()
        provider = BackendProvider(backend, observers=[Telemetry(meter_provider=meters)])
        for number in range(500):
            key = f"{number}{EVIL}"
            await provider.append_messages(
                key, [Message(role="user", content=key)], {key: key}, user_id=key, create=True
            )
            backend.fails = type(f"Error{number}", (Exception,), {})(EVIL)
            with pytest.raises(type(backend.fails)):
                await provider.get_recent_messages(key)
            backend.fails = None

    asyncio.run(main())
    points = [
        (metric.name, dict(point.attributes))
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    meters.shutdown()
    assert len(points) < 30
    assert "all is well" not in repr(points)


def test_report_of_a_redaction(caplog):
    """A report names kinds, of which there are as many as settings have, and nothing that was found."""
    caplog.set_level(logging.INFO)

    async def main():
        redaction = Redaction(report_every=0.000001)
        provider = BackendProvider(InMemoryBackend(), processors=[redaction])
        for number in range(50):
            said = f"{EVIL} user{number}@example.com"
            await provider.append_messages("c", [Message(role="user", content=said)], {EVIL: said}, create=True)
        return redaction.report()

    assert asyncio.run(main()) == {"email": 100}
    assert not obeyed("".join(record.getMessage() for record in caplog.records))


def test_the_sweep_finds_what_is_obeyed():
    """What is looked for above is found where it is."""
    assert len(obeyed(EVIL)) >= 8
    keys = DataKeys(KeyRing({"k": bytes(32)}), KeyFile("/nowhere"))
    assert not obeyed(repr(Encryption(keys).keys))
