"""Plugins that nobody should load in a process of worth."""

import os
import sys
import time

from jaf_memory_core.hooks import ProviderSpec, hookimpl
from jaf_memory_core.settings import ProviderConfig


def spec(name):
    """Describe a provider that is never created."""
    return ProviderSpec(name=name, config=ProviderConfig, create=object, persistence="None.", api=1)


class exits:  # noqa: N801
    """Ends Python."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Crash."""
        os._exit(7)


class hangs:  # noqa: N801
    """Does not come back."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Hang."""
        time.sleep(3600)


class chatters:  # noqa: N801
    """Writes where it should not."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Chatter."""
        print('welcome to acme!\n{"ok": false}', end="", flush=True)  # noqa: T201
        return spec("chatter")


class quits:  # noqa: N801
    """Takes itself for a program."""

    @staticmethod
    @hookimpl
    def jaf_memory_provider():
        """Quit."""
        sys.exit("acme has had enough")
