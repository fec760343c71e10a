"""`Store`: what a check works with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any, TypeVar, cast

from jaf_memory_core.provider import BackendProvider
from jaf_memory_testing.target import Target

T = TypeVar("T")

PATIENCE = float(os.environ.get("JAF_TEST_PATIENCE", "120"))
"""Seconds after which a check that hangs is ended."""


class Store:
    """The target's store during one check, with an event loop of its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._loop = asyncio.new_event_loop()
        self._opened: list[BackendProvider] = []

    async def open(self, **settings: Any) -> BackendProvider:
        """Open one more provider on the store; it is closed when the check ends."""
        provider = cast("BackendProvider", await self.target.open(**settings))
        self._opened.append(provider)
        return provider

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the check's loop."""
        return self._loop.run_until_complete(self._patiently(work))

    async def _patiently(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        _, hanging = await asyncio.wait({task}, timeout=PATIENCE)
        if hanging:
            task.cancel()
            await asyncio.wait({task}, timeout=PATIENCE)
            raise AssertionError(f"the check hangs: it takes more than {PATIENCE:g} s")
        return await task

    def finish(self) -> None:
        """Close every provider that the check opened, clean the store, and end the loop."""
        try:
            self._loop.run_until_complete(self._clear())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _clear(self) -> None:
        for provider in reversed(self._opened):
            if hasattr(provider, "close"):
                await asyncio.wait_for(provider.close(), PATIENCE)
        if self.target.clean is not None:
            await self.target.clean()

    async def empty(self, provider: BackendProvider) -> None:
        """Remove every conversation, so that one check can try many cases."""
        async for conversation in provider.iter_conversations():
            await provider.delete_conversation(conversation.conversation_id)
        await provider.purge_expired()
