"""What the log is told of a store: that it is lost, that it is back, that it is slow."""

from __future__ import annotations

import logging
import time

logger = logging.getLogger("jaf_memory_core")


class Outage:
    """Whether a provider's store answers. The log is told once when it is lost, and once when it is back.

    One connection that breaks, and another that answers, are no outage: it is lost once an operation fails for it, or
    nobody was answered between two that broke.

    Attributes:
        since: when the first connection broke (`time.perf_counter`); `None` while it answers.
    """

    def __init__(self, provider: str) -> None:
        self.since: float | None = None
        self._provider = provider
        self._met = 0
        self._told = False

    def met(self, error: BaseException, *, anew: bool, failed: bool) -> None:
        """Take notice of a connection that could not be had, or broke.

        Args:
            error: ours, whose text holds no secret.
            anew: whether this operation has not met the outage before.
            failed: whether the operation ends with it.
        """
        first = self.since is None
        if first:
            self.since, self._met, self._told = time.perf_counter(), 0, False
        if not self._told and (failed or not first):
            self._told = True
            logger.warning("memory provider %s: the store is lost: %s", self._provider, one_line(str(error)))
        self._met += anew

    def over(self) -> None:
        """Take notice of an answer."""
        if self.since is not None:
            seconds, self.since = time.perf_counter() - self.since, None
            if not self._told:
                return
            logger.warning(
                "memory provider %s: the store is back after %.1f s, in which it was missing to %d operation%s",
                self._provider,
                seconds,
                self._met,
                "" if self._met == 1 else "s",
            )


def tell_slow(provider: str, operation: str, seconds: float, retries: int, waited: float) -> None:
    """Tell the log of an operation that took long; of what it was about nothing is told."""
    again = f"; retries: {retries}, with {waited:.2f} s between" if retries > 0 else ""
    logger.warning("memory provider %s: %s took %.2f s%s", provider, operation, seconds, again)


def one_line(text: str) -> str:
    """A text that cannot end a line of a log, or move a terminal's cursor: what is not printable is spelled out."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
