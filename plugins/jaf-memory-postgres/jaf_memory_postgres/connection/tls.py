"""TLS to the server: libpq's words for it, and a context that does what each word says."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

Mode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""From the weakest to the strictest."""

SYSTEM = "system"
"""Stands for the authorities that the system trusts, as in libpq 16."""


_VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


class _Context(ssl.SSLContext):
    """A context that asks for the host by its name where its address is connected to (`hostaddr`)."""

    server_name: str | None = None

    def wrap_bio(self, *positional: Any, **named: Any) -> ssl.SSLObject:
        named["server_hostname"] = self.server_name or named.get("server_hostname")
        return super().wrap_bio(*positional, **named)


class Tls(NamedTuple):
    """How a line to the server is to be secured.

    Attributes:
        mode: one of libpq's words.
        authority: file of the certificates that are trusted, `"system"`, or `None`.
        certificate, key, passphrase: the client's own certificate, where the server asks for one.
        direct: begin with TLS instead of asking for it (`sslnegotiation=direct`).
        revoked, revoked_folder: a file and a folder of certificates that are revoked.
        oldest, newest: versions of TLS, as libpq writes them, or `None`.
    """

    mode: Mode = "prefer"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    passphrase: str | None = None
    direct: bool = False
    revoked: str | None = None
    revoked_folder: str | None = None
    oldest: str | None = None
    newest: str | None = None

    @property
    def verified(self) -> bool:
        """Whether the server has to show a certificate that is trusted."""
        return self.mode.startswith("verify")

    def choices(self, name: str) -> list[ssl.SSLContext | None]:
        """What to try, in this order; `None` is plain text.

        Args:
            name: the host's name, whatever address is connected to.

        Raises:
            OSError: a certificate's file cannot be read, or is none.
        """
        if self.mode == "disable":
            return [None]
        context = self._context(name)
        return {"allow": [None, context], "prefer": [context, None]}.get(self.mode, [context])

    def _context(self, name: str) -> ssl.SSLContext:
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = name
        context.minimum_version = _VERSIONS[self.oldest or "TLSv1.2"]
        if self.newest is not None:
            context.maximum_version = _VERSIONS[self.newest]
        # In this order: Python refuses CERT_NONE for a context that still checks the host's name.
        context.check_hostname = self.mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if self.verified else ssl.CERT_NONE
        if self.verified and self.authority in (None, SYSTEM):
            context.load_default_certs()
        elif self.verified:
            context.load_verify_locations(cafile=self.authority)
        # An empty passphrase rather than none, for which OpenSSL would ask at the terminal, and wait.
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, self.passphrase or "")
        if self.revoked is not None or self.revoked_folder is not None:
            context.load_verify_locations(cafile=self.revoked, capath=self.revoked_folder)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
        if self.direct:
            # PostgreSQL refuses TLS from the first byte on without this.
            context.set_alpn_protocols(["postgresql"])
        return context


def secured(parameters: Mapping[str, str], authority: str | None, *, setting: bool | Mode | None) -> Tls:
    """How connections are secured by a connection string's parameters and the settings together.

    Args:
        parameters: of the string, by libpq's names.
        authority: file of trusted certificates by the settings, or `None`.
        setting: `True` verifies fully, `False` is plain text, `None` leaves it to the string.

    Raises:
        ValueError: as `combined` says.
    """
    authority = authority or parameters.get("sslrootcert")
    words = [parameters[name] for name in ("sslmode",) if name in parameters]
    # Older and others' ways to ask for TLS; a channel can be bound only where there is TLS.
    asked = {"ssl": "true", "requiressl": "1", "channel_binding": "require"}
    words += ["require" for name, value in asked.items() if parameters.get(name) == value]
    if "disable" in words and len(set(words)) > 1:
        raise ValueError("sslmode in the URL is disable, and another parameter asks for TLS")
    word = max(words, key=MODES.index, default=None) if set(words) <= set(MODES) else words[0]
    has_own = parameters.get("sslcertmode") != "disable"
    return Tls(
        combined(word, authority, setting=setting),
        authority,
        parameters.get("sslcert") if has_own else None,
        parameters.get("sslkey"),
        parameters.get("sslpassword"),
        direct=parameters.get("sslnegotiation") == "direct",
        revoked=parameters.get("sslcrl"),
        revoked_folder=parameters.get("sslcrldir"),
        oldest=parameters.get("ssl_min_protocol_version"),
        newest=parameters.get("ssl_max_protocol_version"),
    )


def combined(word: str | None, authority: str | None, *, setting: bool | Mode | None) -> Mode:
    """The mode that a setting and a connection string's `sslmode` come to.

    Args:
        word: what the connection string says, or `None`.
        authority: file of trusted certificates, or `None`.
        setting: `True` verifies fully, `False` is plain text, `None` leaves it to the connection string.

    Returns:
        the stricter of the two; `prefer` if neither says anything. With an authority `require` verifies, as in libpq.

    Raises:
        ValueError: one asks for TLS where the other forbids it, the word is unknown, or `verify-…` has no authority.
    """
    if word is not None and word not in MODES:
        raise ValueError(f"sslmode in the URL must be one of {', '.join(MODES)}")
    asked: list[Mode] = [mode for mode in MODES if mode == word]
    if setting is True:
        asked.append("verify-full")
    elif setting is False:
        asked.append("disable")
    elif setting is not None:
        asked.append(setting)
    if "disable" in asked and max(map(MODES.index, asked)) >= MODES.index("require"):
        raise ValueError(
            "the setting ssl and sslmode in the URL contradict each other: one forbids TLS, one asks for it"
        )
    if setting is False:
        return "disable"
    mode: Mode = max(asked, key=MODES.index, default="prefer")
    if mode.startswith("verify") and authority is None and setting is not True:
        raise ValueError(f"{mode} needs ssl_ca_file: the file of the authority's certificate, or 'system'")
    return "verify-ca" if mode == "require" and authority is not None else mode
