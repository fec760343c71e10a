"""Stands for our own plugin, of another age than the core."""

from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


@hookimpl
def jaf_memory_provider():
    """Return the provider."""
    return ProviderSpec(name="sqlite", config=ProviderConfig, create=object, persistence="None.", api=0)
