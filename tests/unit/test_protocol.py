"""The protocols: six methods, and all."""

import inspect

import pytest

from jaf_memory_core import BackendProvider, ManagedMemoryProvider, MemoryProvider, create_in_memory_provider

SIX = [name for name in vars(MemoryProvider) if not name.startswith("_")]
MANAGED = [name for name in vars(ManagedMemoryProvider) if not name.startswith("_") and name not in SIX]


class Documented:
    """The class of the document: six methods, and no base."""

    async def store_messages(self, conversation_id, messages, metadata=None):
        """Store."""

    async def get_conversation(self, conversation_id):
        """Get."""

    async def append_messages(self, conversation_id, messages, metadata=None):
        """Append."""

    async def get_recent_messages(self, conversation_id, limit=50):
        """Get."""

    async def delete_conversation(self, conversation_id):
        """Delete."""

    async def health_check(self):
        """Tell."""


def test_six():
    """The protocol asks for the six methods of the document, and no more."""
    assert sorted(SIX) == sorted(name for name in vars(Documented) if not name.startswith("_"))
    assert isinstance(Documented(), MemoryProvider)
    assert not isinstance(Documented(), ManagedMemoryProvider)
    assert not isinstance(object(), MemoryProvider)


def test_ours_has_all():
    """A provider over a backend has all methods of both."""
    provider = create_in_memory_provider()
    assert isinstance(provider, MemoryProvider)
    assert isinstance(provider, ManagedMemoryProvider)


@pytest.mark.parametrize("name", [*SIX, *MANAGED])
def test_signatures_agree(name):
    """A provider over a backend takes each method's arguments as the protocol has them; what it adds is optional."""
    asked = inspect.signature(vars(ManagedMemoryProvider).get(name) or vars(MemoryProvider)[name]).parameters
    offered = inspect.signature(getattr(BackendProvider, name)).parameters
    for parameter in asked.values():
        ours = offered[parameter.name]
        assert (ours.kind, ours.default, ours.annotation) == (parameter.kind, parameter.default, parameter.annotation)
    added = [offered[extra] for extra in offered if extra not in asked]
    assert all(
        one.kind is inspect.Parameter.KEYWORD_ONLY and one.default is not inspect.Parameter.empty for one in added
    )


@pytest.mark.parametrize("name", [*SIX, *MANAGED])
def test_same_kind_of_method(name):
    """What is awaited is awaited, and what is iterated is iterated."""
    method = getattr(BackendProvider, name)
    if name in {"iter_conversations", "iter_users", "for_user"}:
        assert not inspect.iscoroutinefunction(method)
    else:
        assert inspect.iscoroutinefunction(method)


def test_nothing_public_is_forgotten():
    """Every public method of a provider is in the protocol, but those for who made it."""
    public = {name for kind in BackendProvider.__mro__ for name in vars(kind) if not name.startswith("_")} - set(
        dir(object)
    )
    methods = {name for name in public if callable(getattr(BackendProvider, name, None))}
    assert methods - {*SIX, *MANAGED} == {"open"}
