"""A provider that imports its driver, which is not installed, only when it is created."""

from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


def backend(_config):
    """Fail."""
    import acme_driver.client  # noqa: F401


@hookimpl
def jaf_memory_provider():
    """Return the provider."""
    return ProviderSpec(name="late", config=ProviderConfig, backend=backend, persistence="None.", api=1)
