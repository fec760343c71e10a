"""Settings that take anything, and show too much."""

from __future__ import annotations

from typing import Any

from broken_stores.sound import Plain, caught_by
from jaf_memory_core import BackendProvider, ProviderConfig


class OpenSettings(ProviderConfig):
    """Settings with a password that is a plain text."""

    password: str = ""


@caught_by("test_wrong_settings")
class TakesAnySetting(Plain):
    """Settings are not checked."""

    @staticmethod
    async def _open(backend: Plain, **settings: Any) -> BackendProvider:
        return BackendProvider(backend.connection(), ProviderConfig.model_construct(**settings))


@caught_by("test_wrong_settings")
class PassesOverTheUnknown(Plain):
    """A misspelt setting is passed over in silence."""

    @staticmethod
    async def _open(backend: Plain, **settings: Any) -> BackendProvider:
        known = {name: value for name, value in settings.items() if name in ProviderConfig.model_fields}
        return BackendProvider(backend.connection(), ProviderConfig(**known))


@caught_by("test_settings_show_no_secret")
class ShowsItsPassword(Plain):
    """The password stands in the `repr` of the settings."""

    @staticmethod
    async def _open(backend: Plain, **settings: Any) -> BackendProvider:
        return BackendProvider(backend.connection(), OpenSettings(**settings))
