"""What is refused and how: errors, limits of what may be stored, and settings, which must not show secrets."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from jaf_memory_core.conversations import MemoryQuery
from jaf_memory_core.errors import MemoryConfigurationError, MemoryError, MemoryInvalidInputError, MemoryNotFoundError
from jaf_memory_core.provider import BackendProvider
from jaf_memory_core.results import Failure
from jaf_memory_core.settings import ProviderConfig
from jaf_memory_testing.checks import Checks, needs
from jaf_memory_testing.expectations import absent, done, refused, whole
from jaf_memory_testing.samples import RAISING, nested, said, talk
from jaf_memory_testing.target import Store

SENTINEL = "SENTINEL-CONTENT"


class ErrorChecks(Checks):
    """What is raised, what is answered, and what it says."""

    @pytest.mark.parametrize("name", list(RAISING))
    async def test_not_found(self, store: Store, name: str) -> None:
        """`MemoryNotFoundError` tells the conversation and the provider, and is not retryable."""
        provider = await store.open()
        with pytest.raises(MemoryNotFoundError) as caught:
            await RAISING[name](provider, "gone: {}*")
        error = caught.value
        assert error.conversation_id == "gone: {}*"
        assert (error.provider, error.retryable, error.outcome) == (provider.name, False, "not_applied")

    async def test_failures_name_the_provider(self, store: Store) -> None:
        """The error of a `Failure` tells the provider, and that nothing was applied."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1), user_id="u"))
        for answer in (
            await provider.append_messages("missing", talk(1)),
            await provider.store_messages("c", talk(1), expected_version=7),
            await provider.store_messages("c", talk(1), user_id="v"),
            await provider.append_messages("c", [said("other", message_id="m0")]),
            await provider.store_messages("", talk(1)),
        ):
            assert isinstance(answer, Failure)
            assert isinstance(answer.error, MemoryError)
            assert answer.error.provider == provider.name
            assert answer.error.outcome == "not_applied"

    @pytest.mark.parametrize(
        "messages",
        [None, "text", {"role": "user"}, [{"role": "user", "content": "x"}], [None], 7, said("alone")],
        ids=["none", "text", "dict", "list-of-dicts", "list-of-none", "number", "one-message"],
    )
    async def test_no_messages(self, store: Store, messages: Any) -> None:
        """What is no list of messages is refused as a `Failure`, which is a `ValueError`, too."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        for write in (provider.store_messages, provider.append_messages):
            assert isinstance(refused(await write("c", messages), MemoryInvalidInputError), ValueError)
        assert (await whole(provider)).version == 1

    @pytest.mark.parametrize("metadata", ["text", [("a", 1)], 7, True], ids=["text", "pairs", "number", "bool"])
    async def test_no_metadata(self, store: Store, metadata: Any) -> None:
        """What is no mapping is no metadata."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        for write in (provider.store_messages, provider.append_messages):
            refused(await write("c", talk(1, "n"), metadata), MemoryInvalidInputError)
        with pytest.raises(MemoryInvalidInputError):
            await provider.update_metadata("c", metadata)
        assert (await whole(provider)).version == 1

    async def test_refused_input_leaves_the_store(self, store: Store) -> None:
        """Invalid input of any method changes nothing, and the provider goes on."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        before = await whole(provider)
        bad: Any = "\ud800"
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: provider.get_conversation_until_message("c", bad),
            lambda: provider.truncate_conversation_after("c", bad),
            lambda: provider.delete_messages("c", [bad]),
            lambda: provider.update_metadata("c", {"x": float("nan")}),
            lambda: provider.get_stats(bad),
            lambda: provider.set_expiry(bad, 60),
        ]
        for call in calls:
            with pytest.raises(MemoryInvalidInputError):
                await call()
        assert await whole(provider) == before

    async def test_nothing_of_content_is_told(self, store: Store, caplog: pytest.LogCaptureFixture) -> None:
        """No log line and no text of an error holds content of messages or metadata."""
        caplog.set_level(logging.DEBUG)
        provider = await store.open(max_metadata_bytes=200, max_message_bytes=400)
        texts: list[str] = []
        message = said(SENTINEL, message_id="m", name=SENTINEL, value={SENTINEL: [SENTINEL]})
        done(await provider.store_messages("c", [message], {"x": SENTINEL}, user_id="u"))
        for answer in (
            await provider.append_messages("c", [said(SENTINEL + "2", message_id="m")]),
            await provider.append_messages("c", [said(SENTINEL, message_id="n"), said("x", message_id="n")]),
            await provider.append_messages("c", [said(SENTINEL * 50)]),
            await provider.append_messages("c", talk(1), {"x": SENTINEL * 20}),
            await provider.append_messages("c", talk(1), {"x": {SENTINEL, 1}}),
            await provider.append_messages("c", [said("x", value=[SENTINEL, nested(150)])]),
            await provider.store_messages("c", [message], {"x": [SENTINEL, 10**4500]}),
            await provider.store_messages("c", [message], {"x": SENTINEL}, user_id="v"),
            await provider.store_messages("c", [message], {"x": SENTINEL}, expected_version=9),
        ):
            assert isinstance(answer, Failure)
            error: BaseException | None = answer.error
            while error is not None:
                texts += [str(error), repr(error)]
                # A traceback shows these as well.
                error = error.__cause__ or error.__context__
        await provider.get_conversation("c")
        await provider.find_conversations(MemoryQuery(metadata={"x": SENTINEL}))
        await provider.health_check()
        await provider.delete_conversation("c")
        texts += [record.getMessage() for record in caplog.records]
        texts += [str(record.exc_info) for record in caplog.records]
        assert not [text for text in texts if SENTINEL in text]


class LimitChecks(Checks):
    """Limits are settable, hold exactly, let nothing of a call through, and are named by the error."""

    async def _held(self, provider: BackendProvider, limit: str, *calls: Callable[[], Awaitable[Any]]) -> None:
        before = await whole(provider)
        for call in calls:
            assert refused(await call(), MemoryInvalidInputError).limit == limit
        assert await whole(provider) == before
        await absent(provider, "new")

    async def test_bytes_of_a_message(self, store: Store) -> None:
        """`max_message_bytes` holds for each encoded message."""
        provider = await store.open(max_message_bytes=500)
        fits, large = said("x" * 400, message_id="a"), said("é" * 300, message_id="b")
        done(await provider.store_messages("c", [fits]))
        await self._held(
            provider,
            "max_message_bytes",
            lambda: provider.append_messages("c", [*talk(1), large]),
            lambda: provider.store_messages("c", [large]),
            lambda: provider.store_messages("new", [*talk(1), large]),
        )

    async def test_bytes_of_a_call(self, store: Store) -> None:
        """`max_call_bytes` holds for all messages of a call together."""
        provider = await store.open(max_call_bytes=2000)
        many = [said("x" * 300, message_id=f"n{n}") for n in range(10)]
        done(await provider.store_messages("c", many[:4]))
        done(await provider.append_messages("c", many[4:8]))
        await self._held(
            provider,
            "max_call_bytes",
            lambda: provider.append_messages("c", many),
            lambda: provider.store_messages("c", many),
            lambda: provider.store_messages("new", many),
        )

    async def test_messages_of_an_append(self, store: Store) -> None:
        """`max_append_messages` holds for an append, exactly; a store may bring more."""
        provider = await store.open(max_append_messages=5)
        done(await provider.store_messages("c", talk(20)))
        done(await provider.append_messages("c", talk(5, "n")))
        await self._held(
            provider,
            "max_append_messages",
            lambda: provider.append_messages("c", talk(6, "o")),
            lambda: provider.append_messages("new", talk(6), create=True),
        )

    async def test_bytes_of_metadata(self, store: Store) -> None:
        """`max_metadata_bytes` holds for the metadata of a call, `update_metadata` included."""
        provider = await store.open(max_metadata_bytes=100)
        done(await provider.store_messages("c", talk(1), {"x": "a" * 80}))
        await self._held(
            provider,
            "max_metadata_bytes",
            lambda: provider.append_messages("c", talk(1, "n"), {"x": "a" * 100}),
            lambda: provider.store_messages("new", talk(1), {"x": "é" * 60}),
        )
        for patch in ({"x": "a" * 100}, {"y": "a" * 60}):  # too large by itself, and beside what is there
            with pytest.raises(MemoryInvalidInputError) as error:
                await provider.update_metadata("c", patch)
            assert error.value.limit == "max_metadata_bytes"
        assert (await whole(provider)).version == 1

    async def test_nesting(self, store: Store) -> None:
        """`max_nesting` holds exactly."""
        provider = await store.open(max_nesting=5)
        done(await provider.store_messages("c", [said("x", value=nested(5))], {"x": nested(5)}))
        await self._held(
            provider,
            "max_nesting",
            lambda: provider.append_messages("c", [said("x", value=nested(6))]),
            lambda: provider.append_messages("c", talk(1), {"x": {"y": nested(5)}}),
            lambda: provider.store_messages("new", talk(1), {"x": nested(6)}),
        )

    async def test_digits(self, store: Store) -> None:
        """`max_integer_digits` holds exactly, for negative integers, too."""
        provider = await store.open(max_integer_digits=20)
        done(await provider.store_messages("c", [said("x", value=10**20 - 1)], {"x": [-(10**20) + 1]}))
        await self._held(
            provider,
            "max_integer_digits",
            lambda: provider.append_messages("c", [said("x", value={"y": 10**20})]),
            lambda: provider.append_messages("c", talk(1), {"x": [-(10**20)]}),
            lambda: provider.store_messages("new", talk(1), {"x": 10**20}),
        )

    async def test_defaults(self, store: Store) -> None:
        """Unless set, a message has up to 16 MiB, metadata up to 1 MiB, an append up to 10,000 messages."""
        provider = await store.open()
        done(await provider.store_messages("c", talk(1)))
        done(await provider.append_messages("c", talk(10_000, "n"), {"x": "a" * (2**20 - 100)}))
        for limit, messages, metadata in (
            ("max_message_bytes", [said("x" * 2**24)], None),
            ("max_append_messages", talk(10_001, "o"), None),
            ("max_metadata_bytes", talk(1, "o"), {"x": "a" * 2**20}),
        ):
            await self._held(provider, limit, partial(provider.append_messages, "c", messages, metadata))


HIDDEN = "hunter2-of-the-kit"

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
                for value in (HIDDEN, SecretStr(HIDDEN), f"scheme://user:{HIDDEN}@host:1/name"):
                    shown = _shown(config, name, value)
                    assert HIDDEN not in shown, f"{config.__name__}.{name} shows what it holds: {shown}"


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
