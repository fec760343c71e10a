"""Encryption for jaf-memory: the plugin `encryption`.

JAF_MEMORY_PLUGINS=encryption JAF_ENCRYPTION_KEYS=2026a:… JAF_ENCRYPTION_DATA_KEYS=/var/lib/chat/data-keys.db
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from jaf_memory_core.hooks import hookimpl
from jaf_memory_core.processors import Processor
from jaf_memory_core.settings import load
from jaf_memory_encryption.datakeys import DataKeys
from jaf_memory_encryption.encryption import Encryption
from jaf_memory_encryption.keyfile import KeyFile, WrappedKey
from jaf_memory_encryption.masterkeys import KeyRing, KeyService
from jaf_memory_encryption.settings import EncryptionSettings, from_settings

__all__ = ["DataKeys", "Encryption", "EncryptionSettings", "KeyFile", "KeyRing", "KeyService", "WrappedKey"]


@hookimpl
def jaf_memory_processors(environ: Mapping[str, str]) -> Sequence[Processor]:
    """What `JAF_MEMORY_PLUGINS=encryption` brings: everything is sealed on its way into the store."""
    return [from_settings(load(EncryptionSettings, environ))]
