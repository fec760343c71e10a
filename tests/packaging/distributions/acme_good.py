"""A provider as it should be: settings, a backend, one hook."""

from pydantic import Field, SecretStr

from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


class GoodConfig(ProviderConfig):
    """Settings with everything that real ones have."""

    env_prefix = "JAF_GOOD_"
    env_older_names = {"JAF_GOOD_DB": "database"}  # noqa: RUF012

    database: str = "good"
    """Name of the database."""

    password: SecretStr | None = None
    """Password of the user."""

    max_conversations: int = Field(10, ge=1)
    """Conversations kept."""


class GoodBackend(InMemoryBackend):
    """The core's own, under another name."""

    name = "good"


@hookimpl
def jaf_memory_provider():
    """Return the provider named `good`."""
    return ProviderSpec(
        name="good",
        config=GoodConfig,
        backend=GoodBackend,
        persistence=lambda config: f"none, in database {config.database}",
        summary="a good one",
        api=1,
    )
