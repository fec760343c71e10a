"""Where sessions and states of Google ADK stand: ids of conversations, and keys of their metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.adk.events import EventActions
from google.adk.sessions import State

from jaf_memory_core import ConversationMemory
from jaf_memory_core.values import thaw

STATE = "state:"
"""Beginning of the metadata keys that hold state, a key each: writers of different keys do not meet."""


def key_of(*names: str) -> str:
    """The conversation of an app's state, a user's, or a session; no two of them ever meet."""
    return "/".join(["adk", *(name.replace("%", "%25").replace("/", "%2F") for name in names)])


def keys_of(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state as metadata."""
    return {STATE + name: value for name, value in state.items()}


def state_of(header: ConversationMemory | None) -> dict[str, Any]:
    """The state in a conversation's metadata, as plain dicts and lists; none where there is no conversation."""
    metadata = header.metadata if header is not None else {}
    return {name.removeprefix(STATE): thaw(value) for name, value in metadata.items() if name.startswith(STATE)}


def delta_of(actions: EventActions) -> dict[str, Any]:
    """The change of state that actions bring, as ADK writes it into JSON; it warns of what JSON cannot hold."""
    delta: dict[str, Any] = actions.model_dump(mode="json", include={"state_delta"}).get("state_delta") or {}
    return delta


def scopes_of(state: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What of a state is the app's, the user's, and the session's own; what is temporary is nobody's."""
    app: dict[str, Any] = {}
    user: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for name, value in state.items():
        if name.startswith(State.APP_PREFIX):
            app[name.removeprefix(State.APP_PREFIX)] = value
        elif name.startswith(State.USER_PREFIX):
            user[name.removeprefix(State.USER_PREFIX)] = value
        elif not name.startswith(State.TEMP_PREFIX):
            own[name] = value
    return app, user, own
