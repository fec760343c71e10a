"""TLS to the server: libpq's words for it, and a context that does what each word says."""

from __future__ import annotations

import ssl
from typing import Literal, NamedTuple, get_args

Mode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
MODES: tuple[Mode, ...] = get_args(Mode)
"""From the weakest to the strictest."""

SYSTEM = "system"
"""Stands for the authorities that the system trusts, as in libpq 16."""


class Tls(NamedTuple):
    """How a line to the server is to be secured.

    Attributes:
        mode: one of libpq's words.
        authority: file of the certificates that are trusted, `"system"`, or `None`.
        certificate, key, passphrase: the client's own certificate, where the server asks for one.
        direct: begin with TLS instead of asking for it (`sslnegotiation=direct`).
    """

    mode: Mode = "prefer"
    authority: str | None = None
    certificate: str | None = None
    key: str | None = None
    passphrase: str | None = None
    direct: bool = False

    @property
    def verified(self) -> bool:
        """Whether the server has to show a certificate that is trusted."""
        return self.mode.startswith("verify")

    def choices(self) -> list[ssl.SSLContext | None]:
        """What to try, in this order; `None` is plain text.

        Raises:
            OSError: a certificate's file cannot be read, or is none.
        """
        if self.mode == "disable":
            return [None]
        context = self._context()
        return {"allow": [None, context], "prefer": [context, None]}.get(self.mode, [context])

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.check_hostname = self.mode == "verify-full"
        context.verify_mode = ssl.CERT_REQUIRED if self.verified else ssl.CERT_NONE
        if self.verified and self.authority in (None, SYSTEM):
            context.load_default_certs()
        elif self.verified:
            context.load_verify_locations(cafile=self.authority)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key, self.passphrase or "")
        if self.direct:
            context.set_alpn_protocols(["postgresql"])
        return context


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
