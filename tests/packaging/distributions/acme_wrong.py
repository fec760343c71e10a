"""Plugins that load, and offer what they should not."""

from jaf_memory_core import Processor
from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


class Offer:
    """Offers what it is given."""

    def __init__(self, offer):
        self._offer = offer

    @hookimpl
    def jaf_memory_provider(self):
        """Return it."""
        return self._offer


def spec(name, **changes):
    """Describe a provider that is never created."""
    return ProviderSpec(
        **{"name": name, "config": ProviderConfig, "create": object, "persistence": "None.", "api": 1, **changes}
    )


none = Offer(None)
misnamed = Offer(spec("somebody-else"))
newer = Offer(spec("newer", api=99))
older = Offer(spec("older", api=0))


class unmarked:  # noqa: N801
    """Forgets the mark."""

    @staticmethod
    def jaf_memory_provider():
        """Never called."""


class misspelt:  # noqa: N801
    """Misspells the hook."""

    @staticmethod
    @hookimpl
    def jaf_memory_provder():
        """Never called."""


class signature:  # noqa: N801
    """Wants an argument that there is not."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider(environment):
        """Never called."""


class raising:  # noqa: N801
    """Fails in its hook."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Fail, and say too much."""
        raise LookupError("cannot reach acme://user:hunter2@store")


class incomplete:  # noqa: N801
    """Describes a provider that nothing creates."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Fail."""
        return spec("incomplete", create=None)


class single:  # noqa: N801
    """Returns a processor, not a list."""

    @staticmethod
    @hookimpl
    def jaf_memory_processors():
        """Return one."""
        return Processor()


class mixed:  # noqa: N801
    """Returns something else among its observers."""

    @staticmethod
    @hookimpl
    def jaf_memory_observers():
        """Return two."""
        return [print, "acme"]
