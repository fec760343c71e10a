"""Keep a conversation in a file, read it back in another process, and look at it.

    python3 dev.py demo                       set up, and run
    python3 dev.py demo -- --folder FOLDER    keep the file in a folder of your own

Each step checks what it shows. If one is not as it should be, the program says so and ends with status 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from jaf_memory_core import (
    ConversationMemory,
    Failure,
    ManagedMemoryProvider,
    MemoryQuery,
    Message,
    Result,
    WriteResult,
    create_memory_provider_from_env,
    digest,
)

CHAT = "user-123:support:2024-01-15"
QUESTION = [
    Message("user", "Where is my order 8812?"),
    Message(
        "assistant",
        tool_calls=[{"id": "call-1", "function": {"name": "find_order", "arguments": '{"number": 8812}'}}],
    ),
    Message("tool", '{"state": "on its way", "arrives": "Thursday"}', tool_call_id="call-1"),
    Message("assistant", "It is on its way, and should be with you on Thursday."),
]
THANKS = [
    Message("user", "Great. ¡Hasta el jueves! 👋"),
    Message("assistant", "You are welcome."),
]

console = Console(highlight=False)
console.width = min(console.width, 80)


async def main(path: Path) -> None:
    """Go through what an application does with a conversation."""
    # An application finds these two set. They are all that depends on the store.
    os.environ.update(JAF_MEMORY_TYPE="sqlite", JAF_SQLITE_PATH=str(path))

    provider = await create_memory_provider_from_env()
    try:
        await store(provider)
        await read_in_second_process(provider)
        await append(provider)
        await search(provider)
        await statistics_and_health(provider)
        await transcript(provider)
    finally:
        await provider.close()
    what_next(path)


async def store(provider: ManagedMemoryProvider) -> None:
    """Store a conversation."""
    title("Store a conversation", "store_messages(id, messages, metadata)")
    done = written(await provider.store_messages(CHAT, QUESTION, {"user_id": "user-123", "topic": "orders"}))
    expect(done.message_count == len(QUESTION), "all messages are stored")
    say(f"{done.message_count} messages of {CHAT} are on disk")


async def read_in_second_process(provider: ManagedMemoryProvider) -> None:
    """Let another Python read it, from the same two variables."""
    title("Read it in a second process", "get_conversation(id)")
    command = [sys.executable, __file__, "--reader"]
    answer = await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.PIPE)
    theirs = json.loads(answer.stdout)
    ours = digest(await stored(provider))
    expect(theirs["process"] != os.getpid(), "the reader is another process")
    expect(theirs["digest"] == ours, "the reader has read what was stored")
    say(f"process {os.getpid()} wrote, process {theirs['process']} read: {theirs['messages']} messages")
    say(f"SHA-256 over all that was kept, in both: {ours[:16]}…")


async def reader() -> None:
    """Be that other Python."""
    provider = await create_memory_provider_from_env()
    try:
        found = await stored(provider)
    finally:
        await provider.close()
    print(json.dumps({"process": os.getpid(), "messages": len(found.messages), "digest": digest(found)}))


async def append(provider: ManagedMemoryProvider) -> None:
    """Append two messages, and then the same two again, as after an answer that was lost on its way."""
    title("Append, and repeat the append", "append_messages(id, messages)")
    first = written(await provider.append_messages(CHAT, THANKS))
    again = written(await provider.append_messages(CHAT, THANKS))
    expect((first.added, again.added) == (len(THANKS), 0), "a repeated append adds nothing")
    say(f"added {first.added} messages, then {again.added}: a retry never doubles a message")


async def search(provider: ManagedMemoryProvider) -> None:
    """Find the conversations of one user among those of two."""
    title("Search by user", "find_conversations(MemoryQuery(user_id=…))")
    for user in ("user-123", "user-456"):
        written(await provider.store_messages(f"{user}:chat", [Message("user", "Hello!")], {"user_id": user}))
    found = await provider.find_conversations(MemoryQuery(user_id="user-123"))
    expect([one.conversation_id for one in found] == ["user-123:chat", CHAT], "the newest comes first")
    count = Column("messages", justify="right")
    table = Table("conversation", count, "last written (UTC)", box=None, header_style="dim")
    for one in found:
        table.add_row(one.conversation_id, str(len(one.messages)), f"{one.updated_at:%Y-%m-%d %H:%M:%S}")
    console.print(table)


async def statistics_and_health(provider: ManagedMemoryProvider) -> None:
    """Count, for everybody and for one user, and ask how the store is."""
    title("Statistics and health", "get_stats(user_id), health_check()")
    everybody, one_user = await provider.get_stats(), await provider.get_stats("user-123")
    expect((everybody["total_conversations"], one_user["user_conversations"]) == (3, 2), "all are counted")
    health = await provider.health_check()
    expect(health["healthy"], "the store is healthy")
    counts = [Column(name, justify="right") for name in ("conversations", "messages", "bytes")]
    table = Table("", *counts, box=None, header_style="dim")
    for name, stats in (("everybody", everybody), ("user-123", one_user)):
        figures = (stats["total_conversations"], stats["total_messages"], stats["total_storage_size"])
        table.add_row(name, *map(str, figures))
    console.print(table)
    say(f"[green]healthy[/]: {health['message']} ({health['latency_ms']:.1f} ms)")


async def transcript(provider: ManagedMemoryProvider) -> None:
    """Show the whole conversation."""
    title("The transcript", "get_conversation(id).messages")
    messages = (await stored(provider)).messages
    expect(list(messages) == QUESTION + THANKS, "every message came back equal, and in order")
    colours = {"user": "cyan", "assistant": "green", "tool": "yellow"}
    table = Table(box=None, show_header=False)
    for message in messages:
        calls = [
            f"{call.function.name}({call.function.arguments})" for call in message.tool_calls or () if call.function
        ]
        table.add_row(Text(message.role, colours[message.role]), Text(str(message.content or " ".join(calls))))
    console.print(table)


def what_next(path: Path) -> None:
    """Tell the reader what to try."""
    tool = shlex.quote(str(Path(sys.executable).with_name("jaf-memory")))
    console.print("\n[bold green]All of it is as it should be.[/] The file is still there; look into it:\n")
    for command in (
        f"export JAF_MEMORY_TYPE=sqlite JAF_SQLITE_PATH={shlex.quote(str(path))}",
        f"{tool} list",
        f"{tool} show {CHAT}",
        f"{tool} doctor",
    ):
        console.print(f"  {command}", style="bold", markup=False, soft_wrap=True)
    console.print("\nWhat ran here is examples/demo.py; docs/getting-started.md goes on from there.")


async def stored(provider: ManagedMemoryProvider) -> ConversationMemory:
    """The conversation, as the store has it."""
    found = await provider.get_conversation(CHAT)
    return found or sys.exit(f"demo.py: {CHAT} is not there")


def written(result: Result) -> WriteResult:
    """What a write did; a refusal, which is an answer and no exception, becomes one here."""
    if isinstance(result, Failure):
        raise result.error
    return result.data


def expect(condition: object, what: str) -> None:
    """End the program unless something is as it should be."""
    if not condition:
        sys.exit(f"demo.py: not as it should be: {what}")


def title(text: str, call: str) -> None:
    """Head a step."""
    console.print()
    console.rule(f"[bold]{text}[/]  [dim]{call}[/]", align="left", style="dim")


def say(text: str) -> None:
    """Tell what a step has come to."""
    console.print(f" {text}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, help="where to keep the file (default: a new temporary folder)")
    parser.add_argument("--reader", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        asyncio.run(reader())
    else:
        folder = options.folder or Path(tempfile.mkdtemp(prefix="jaf-memory-demo-"))
        folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(main(folder.resolve() / "demo.db"))
