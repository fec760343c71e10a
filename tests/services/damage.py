"""What a store comes to that somebody damaged: every way of reading and writing, tried, and what of it is wrong.

Five conversations are stored, `c0` to `c4`; it is `c2` that is damaged.
"""

from __future__ import annotations

import random

from jaf_memory_testing.expectations import done
from jaf_memory_testing.samples import talk

from jaf_memory_core import MemoryError, MemoryQuery, MemoryStorageError, Message, Summary

NAMES = [f"c{n}" for n in range(5)]
OTHERS = set(NAMES) - {"c2"}
CONTENT = "CONTENT"


async def fill(provider):
    """Store them: four messages each, of two users, with metadata and an expiry; one has a summary."""
    for number, name in enumerate(NAMES):
        messages = [Message("user", f"{CONTENT} {name} {n}", message_id=f"{name}-{n}") for n in range(4)]
        done(await provider.store_messages(name, messages, {"name": name, "n": 1}, user_id="uv"[number % 2]))
        await provider.set_expiry(name, 1_000)
    found = await provider.get_conversation("c2")
    assert await provider.store_summary("c2", Summary("said", "c2-0"), found.incarnation)


async def answers(provider):
    """What every way of reading and of writing comes to."""
    every, headers = MemoryQuery(), MemoryQuery(include_messages=False)
    told = []
    calls = {
        "find": lambda: provider.find_conversations(every, on_damaged=told.append),
        "find headers": lambda: provider.find_conversations(headers, on_damaged=told.append),
        "find by metadata": lambda: provider.find_conversations(MemoryQuery(metadata={"n": 1}), on_damaged=told.append),
        "find of a user": lambda: provider.find_conversations(MemoryQuery(user_id="u"), on_damaged=told.append),
        "find strictly": lambda: provider.find_conversations(every),
        "find one": lambda: provider.find_conversations(MemoryQuery(conversation_id="c2")),
        "iterate": lambda: listed(provider.iter_conversations(every, on_damaged=told.append)),
        "iterate strictly": lambda: listed(provider.iter_conversations(every)),
        "stats": provider.get_stats,
        "health": provider.health_check,
        "get": lambda: provider.get_conversation("c2"),
        "recent": lambda: provider.get_recent_messages("c2", 3),
        "page": lambda: provider.get_messages("c2", 3, 2),
        "append": lambda: provider.append_messages("c2", talk(1, "new-")),
        "held": lambda: provider.append_messages("c2", [Message("user", "other", message_id="c2-2")]),
        "amend": lambda: provider.update_metadata("c2", {"a": 1}),
        "expire": lambda: provider.set_expiry("c2", 900),
        "fork": lambda: provider.fork_conversation("c2", "copy"),
        "revise": lambda: provider.revise_messages("c2", {"c2-2": Message("user", "new")}),
        "truncate": lambda: provider.truncate_conversation_after("c2", "c2-3"),
        "purge": provider.purge_expired,
        "delete": lambda: provider.delete_conversation("c2"),
        "clear": lambda: provider.clear_user_conversations("v"),
    }
    found = {}
    for name, call in calls.items():
        try:
            found[name] = await call()
        except Exception as error:  # noqa: BLE001  (each is told below)
            found[name] = error
    return found, told


async def listed(things):
    """All of them."""
    return [one async for one in things]


def problems(found, told, unnamed=()):
    """What is wrong in that: a raw error, content in a text, something shown that was not stored, or not shown.

    Args:
        found: call → what it came to.
        told: errors of what listings left out.
        unnamed: calls whose error need not name the conversation.
    """
    for name, answer in [*found.items(), *(("told", error) for error in told)]:
        error = answer if isinstance(answer, Exception) else getattr(answer, "error", None)
        yield from (f"{name}: {problem}" for problem in problems_of(error, named=name not in unnamed))
    for name in ("find", "find headers", "iterate"):
        shown = found[name] if isinstance(found[name], list) else []
        ids = [one.conversation_id for one in shown]
        if len(set(ids)) != len(ids) or not set(ids) >= OTHERS:
            yield f"{name}: {ids}"
        yield from (f"{name}: {one!r}" for one in shown if not is_whole(one))
    for name in ("get", "recent", "page"):
        if not isinstance(found[name], Exception) and found[name] is not None and not is_own(found[name]):
            yield f"{name}: {found[name]!r}"
    if not isinstance(found["delete"], bool) and "upgrade jaf-memory" not in str(found["delete"]):
        yield f"delete: {found['delete']!r}"


def problems_of(error, *, named=True):
    """What is wrong with an error."""
    if error is not None and not isinstance(error, MemoryError):
        yield f"{error!r}"
    if named and isinstance(error, MemoryStorageError) and error.conversation_id != "c2":
        yield f"names no conversation: {error!r}"
    while error is not None:
        if CONTENT in f"{error} {getattr(error, 'args', '')}":
            yield f"content in {error!r}"
        error = error.__cause__ or error.__context__


def is_whole(conversation):
    """Whether it shows all four messages, in order; one may be another, for no sum is kept of it."""
    ids = [message.message_id for message in conversation.messages]
    own = [f"{conversation.conversation_id}-{n}" for n in range(4)]
    differing = sum(one != other for one, other in zip(ids, own, strict=False))
    return not ids or (len(ids) == conversation.message_count == 4 and differing <= 1)


def is_own(answer):
    """Whether messages that were read of `c2` are its own."""
    messages = getattr(answer, "messages", answer)
    return sum(not message.message_id.startswith("c2-") for message in messages) <= 1


def changed(kind, content, seed):
    """A value with one bit flipped, cut, with a stretch of zeroes, or with one of other bytes."""
    chance = random.Random(seed)
    place = chance.randrange(len(content))
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ 1 << chance.randrange(8)]) + content[place + 1 :]
    if kind == "cut":
        return content[:place]
    stretch = content[place : place + chance.choice([1, 4, 16])]
    return (
        content[:place]
        + (bytes(len(stretch)) if kind == "zero" else chance.randbytes(len(stretch)))
        + content[place + len(stretch) :]
    )
