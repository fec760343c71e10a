"""The terminal, or what stands in its place: streams and their encoding, widths, text that is shown and not obeyed."""

from __future__ import annotations

import codecs
import errno
import json
import os
import re
import sys
from contextlib import suppress
from io import StringIO
from typing import Any

from rich.console import Console
from rich.text import Text

WIDTH = 100
"""Columns where nobody says how wide the output is: in a pipe or a file without COLUMNS."""

# Control characters could move the cursor or retitle the terminal; marks of direction could make one id look like
# another; lone surrogates cannot be written at all.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_ASCII = {"✓": "+", "✗": "x", "…": "...", "·": "-", "→": "->", "←": "<-", "␊": "\\n", "␉": "\\t", "─": "-"}
"""What stands for our own marks where the encoding lacks them."""


def safe(text: str, *, one_line: bool = True) -> str:
    """A text that a terminal shows without obeying it; tab and line feed stay if it may have several lines."""
    text = _UNSAFE.sub(_visible, text.replace("\r\n", "\n"))
    return text.replace("\n", "␊").replace("\t", "␉") if one_line else text


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return chr(0x2400 + code) if code < 0x20 else f"\\u{code:04x}"  # the control pictures


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to whoever runs the command; rich would end the program here."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def console(stream: Any, into: StringIO | None = None) -> Console:
    """Where rich writes: as wide as the terminal, or as COLUMNS says, or 100 columns.

    Args:
        stream: what is written to in the end.
        into: takes the text meanwhile, made up for that stream.
    """
    terminal = stream.isatty()
    width = None if terminal or os.environ.get("COLUMNS") else WIDTH
    return _Console(
        file=into or stream, force_terminal=terminal or None, width=width, highlight=False, markup=False, emoji=False
    )


def to_json(value: Any, default: Any = str) -> str:
    """JSON in ASCII, so that it can be written wherever."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, default=default)


def prepare() -> None:
    """Make the three streams fit to use, whatever the program was started with."""
    # Where one is closed, a file that is opened later, a database for one, must not get its number.
    for name, flags, mode in (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            # Nothing can be written to standard output then, which is an error as soon as something is.
            setattr(sys, name, os.fdopen(os.open(os.devnull, flags), mode, encoding="utf-8"))
    # An id that the encoding lacks must still be told from another.
    codecs.register_error("jaf-memory", _spelled)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="jaf-memory")  # type: ignore[union-attr]


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    return "".join(_ASCII.get(one) or one.encode("ascii", "backslashreplace").decode() for one in text), error.end


def silence(stream: Any) -> None:
    """Drop what is still buffered: it must not fail a second time when Python ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def leave() -> None:
    """Write what is still buffered; what standard error does not take is lost."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            silence(stream)


def say_error(text: str, kind: str, status: int, *, as_json: bool, **more: Any) -> None:
    """Say on standard error why the program ends; where nobody can read it, the status has to do.

    Args:
        text: the reason.
        kind: the class of the error.
        status: the exit status.
        as_json: whether a program reads it.
        more: further keys for programs.
    """
    if as_json:
        with suppress(OSError):
            sys.stderr.write(to_json({"error": text, "kind": kind, "exit_status": status, **more}) + "\n")
    else:
        say(console(sys.stderr), Text.assemble(("error: ", "bold red"), safe(text)))


def say(messages: Console, text: Text) -> None:
    """Write a message: whole lines for logs, and on a terminal words are not torn apart."""
    with suppress(OSError):
        messages.print(text, soft_wrap=not messages.is_terminal)


def os_error(error: OSError) -> str:
    """What an error of the system's says to people."""
    reason = error.strerror or str(error)
    # All files that we open have a name.
    return (
        f"the output cannot be written: {reason}"
        if error.filename is None
        else f"{os.fspath(error.filename)}: {reason}"
    )
