"""What an engine gave, kept beside a message that says it: how it comes back as it was."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from jaf_memory_core import MemoryInvalidInputError, Message
from jaf_memory_core.messages import Role
from jaf_memory_core.session.blocks import GIVEN, steps_of
from jaf_memory_core.session.formats import FORMS, request_of
from jaf_memory_core.values import thaw

ROLES = frozenset(get_args(Role))
"""What `Message.role` may be."""


def said(engine: str, given: Mapping[str, Any], *forms: Mapping[str, Any]) -> Message:
    """A message of the first of the forms that makes one, with what an engine gave beside it.

    Raises:
        MemoryInvalidInputError: none does; it says what is wrong with the last, or what JSON cannot hold.
    """
    for form in forms[:-1]:
        try:
            return Message(**{**form, GIVEN: {engine: given}})
        except MemoryInvalidInputError:  # a part or a field that is another thing with us
            continue
    return Message(**{**forms[-1], GIVEN: {engine: given}})


def given_of(engine: str, message: Message) -> dict[str, Any] | None:
    """What that engine gave, as plain dicts and lists; `None` where it gave nothing beside the message."""
    given = message.further.get(GIVEN)
    own = given.get(engine) if isinstance(given, Mapping) else None
    plain: dict[str, Any] | None = thaw(own) if isinstance(own, Mapping) else None
    return plain


def translated(messages: Iterable[Message], form: Literal["chat", "responses"]) -> list[dict[str, Any]]:
    """Messages that another engine has stored, as an endpoint takes them: a conversation may change its engine."""
    steps = steps_of(messages, unique=FORMS[form].unique)
    shown = FORMS[form].arranged([message for step in steps for message in FORMS[form].render(step)])
    request: list[dict[str, Any]] = request_of(shown, form)["input" if form == "responses" else "messages"]
    return request
