"""Settings of the plugin `encryption`, and what is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, SecretStr, field_validator

from jaf_memory_core.errors import MemoryConfigurationError
from jaf_memory_core.settings import Settings
from jaf_memory_encryption.datakeys import DataKeys
from jaf_memory_encryption.encryption import Encryption
from jaf_memory_encryption.keyfile import GONE, KeyFile
from jaf_memory_encryption.masterkeys import KeyRing


class EncryptionSettings(Settings):
    """Where the keys are, and what stays readable."""

    env_prefix: ClassVar[str] = "JAF_ENCRYPTION_"

    keys: SecretStr | None = None
    """The key ring: `id:key` with commas, each key 32 bytes in base64; the first one wraps, the others still open."""

    key_file: str | None = None
    """A file that holds the key ring instead, an `id:key` a line."""

    data_keys: str = Field(default="jaf-memory-data-keys.db", min_length=1)
    """The file of the users' data keys, wrapped; apart from the conversations, and from their backups."""

    read_only: bool = False
    """Whether that file is a copy of another machine's: no user gets a first key here, and none is destroyed."""

    plain_metadata: tuple[str, ...] = ()
    """Metadata keys whose values are not sealed, with commas: those that are filtered by; `*` for all."""

    accept_plain: bool = False
    """Whether what was stored before encryption, and so is not sealed, may be read."""

    @field_validator("plain_metadata", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(name.strip() for name in value.split(",") if name.strip()) if isinstance(value, str) else value


def ring_of(settings: EncryptionSettings) -> KeyRing:
    """The key ring that settings name.

    Raises:
        MemoryConfigurationError: there is none, there are two, or it cannot be read.
    """
    if (settings.keys is None) == (settings.key_file is None):
        raise MemoryConfigurationError(
            "set either JAF_ENCRYPTION_KEYS or JAF_ENCRYPTION_KEY_FILE; in code, give processors=[Encryption(...)]"
        )
    if settings.keys is not None:
        return KeyRing.read(settings.keys.get_secret_value().split(","))
    try:
        lines = Path(str(settings.key_file)).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        # No part of the file: what was named by mistake may be a secret too.
        raise MemoryConfigurationError(f"JAF_ENCRYPTION_KEY_FILE cannot be read: {type(error).__name__}") from None
    return KeyRing.read(lines)


def data_keys_of(settings: EncryptionSettings) -> DataKeys:
    """The users' data keys that settings name.

    Raises:
        MemoryConfigurationError: the key ring or the file of data keys is not there, or is not as it has to be.
    """
    ring, file = ring_of(settings), key_file_of(settings)
    if not file.is_there():
        raise MemoryConfigurationError(f"JAF_ENCRYPTION_DATA_KEYS: {file.path} {GONE}")
    return DataKeys(ring, file)


def key_file_of(settings: EncryptionSettings) -> KeyFile:
    """The file of data keys that settings name."""
    return KeyFile(Path(settings.data_keys).expanduser(), read_only=settings.read_only)


def from_settings(settings: EncryptionSettings) -> Encryption:
    """The processor that settings describe."""
    return Encryption(
        data_keys_of(settings), plain_metadata=settings.plain_metadata, accept_plain=settings.accept_plain
    )
