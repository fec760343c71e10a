"""What the settings of a store have to refuse, and must not show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import SecretStr, ValidationError

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.target import Store

SENTINEL = "hunter2-of-the-kit"

SECRET = ("password", "secret", "token", "credential", "connection", "dsn", "url", "uri")
"""Parts of names of settings that may hold a secret."""


def wrong_settings() -> Iterator[tuple[str, Any]]:
    """For each setting that every provider has, values beyond its bounds and of other types, as its type says."""
    for name, field in ProviderConfig.model_fields.items():
        for bound in field.metadata:
            for kind, beyond in (("gt", 0), ("ge", -1), ("le", 1)):
                if hasattr(bound, kind):
                    yield name, getattr(bound, kind) + beyond
        yield from ((name, value) for value in (True, "5", float("nan"), float("inf"), [5]))
    yield "no_such_setting", 1


WRONG = list(wrong_settings())


class SettingsChecks(Checks):
    """Settings, as an application gives them in code."""

    @needs("backend")
    async def test_wrong_settings(self, store: Store) -> None:
        """A setting that every provider has is refused beyond its bounds and of another type, by its name."""
        for name, value in WRONG:
            refusal = await _refusal(store, name, value)
            assert refusal is not None, f"the setting {name}={value!r} is accepted"
            assert name in refusal, f"the refusal of {name}={value!r} does not name it: {refusal}"

    @needs("backend")
    async def test_settings_show_no_secret(self, store: Store) -> None:
        """Neither the `repr` of the settings nor their refusal shows what a setting of a secret's name holds."""
        config = type((await store.open()).config)
        for name, field in config.model_fields.items():
            of_a_secret = any(part in name for part in SECRET) and not name.endswith(("_file", "_timeout", "_lifetime"))
            if of_a_secret or "Secret" in str(field.annotation):
                for value in (SENTINEL, SecretStr(SENTINEL), f"scheme://user:{SENTINEL}@host:1/name"):
                    shown = _shown(config, name, value)
                    assert SENTINEL not in shown, f"{config.__name__}.{name} shows what it holds: {shown}"


async def _refusal(store: Store, name: str, value: Any) -> str | None:
    try:
        await store.open(**{name: value})
    except (MemoryConfigurationError, ValidationError) as error:
        return str(error)
    return None


def _shown(config: type[Any], name: str, value: Any) -> str:
    try:
        return repr(config(**{name: value}))
    except (MemoryConfigurationError, ValidationError) as error:
        return f"{error} {error!r}"
