"""Cross-cutting plugins as they should be."""

from jaf_memory_core import Message, Processor
from jaf_memory_core.hooks import hookimpl

events = []


class Change(Processor):
    """Changes the text that is stored."""

    def __init__(self, change):
        self._change = change

    def outgoing(self, message, _context):
        """Change it."""
        return Message(**{**message.dict(), "content": self._change(message.content)})


class Plugin:
    """One processor."""

    def __init__(self, change):
        self._change = change

    @hookimpl
    def jaf_memory_processors(self):
        """Return it."""
        return [Change(self._change)]


shout = Plugin(str.upper)
exclaim = Plugin(lambda text: f"{text}, he said")


class watch:  # noqa: N801
    """Takes notes."""

    @staticmethod
    @hookimpl
    def jaf_memory_observers():
        """Return one."""
        return (events.append,)
