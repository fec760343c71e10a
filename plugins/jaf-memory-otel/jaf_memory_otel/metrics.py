"""The metrics: one set of instruments for all providers of a process that tell the same meter provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from weakref import WeakKeyDictionary, WeakMethod

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation

from jaf_memory_core.observation import OperationEvent
from jaf_memory_core.records import Usage
from jaf_memory_otel import conventions as names

Attributes = dict[str, str | bool | int | float]


class Metrics:
    """What is counted. No attribute is an id or a text of anybody: their values are bounded in number.

    Args:
        provider: of OpenTelemetry's API.
        version: of this distribution.
    """

    def __init__(self, provider: MeterProvider, version: str) -> None:
        meter = provider.get_meter("jaf_memory", version, names.SCHEMA)
        self._watched: list[tuple[str, WeakMethod[Callable[[], Usage]]]] = []
        self._lock = threading.Lock()
        self._duration = meter.create_histogram(
            "db.client.operation.duration",
            "s",
            "Duration of operations, retries included.",
            explicit_bucket_boundaries_advisory=names.DURATIONS,
        )
        self._rows = meter.create_histogram("db.client.response.returned_rows", "{row}", "Messages that a read gave.")
        self._waited = meter.create_histogram(
            "jaf.memory.operation.waited",
            "s",
            "Time between the attempts of operations that had to be sent again.",
            explicit_bucket_boundaries_advisory=names.DURATIONS,
        )
        self._retries = meter.create_counter("jaf.memory.operation.retries", "{retry}", "Attempts after the first.")
        self._conflicts = meter.create_counter(
            "jaf.memory.operation.conflicts", "{conflict}", "Operations refused because somebody else had written."
        )
        self._messages = meter.create_counter("jaf.memory.messages", "{message}", "Messages handed over to be kept.")
        self._bytes = meter.create_counter("jaf.memory.messages.size", "By", "Bytes of messages handed over.")
        self._removed = meter.create_counter(
            "jaf.memory.conversations.removed", "{conversation}", "Conversations deleted, forgotten and purged."
        )
        gauge, counter = meter.create_observable_up_down_counter, meter.create_observable_counter
        gauge("db.client.connection.count", [self._connections], "{connection}", "Open connections, by state.")
        gauge("db.client.connection.max", [self._of("most")], "{connection}", "Connections that may be open.")
        gauge(
            "db.client.connection.pending_requests",
            [self._of("waiting")],
            "{request}",
            "Operations that wait for a connection, or under way on one that many share.",
        )
        counter("jaf.memory.commits", [self._of("commits")], "{commit}", "Group commits.")
        counter("jaf.memory.commit.operations", [self._of("committed")], "{operation}", "Operations in group commits.")

    def watch(self, provider: str, usage: Callable[[], Usage]) -> None:
        """Ask a provider's backend whenever metrics are collected, for as long as it is there."""
        with self._lock:
            self._watched = [one for one in self._watched if one[1]() is not None]
            self._watched.append((provider, WeakMethod(usage)))

    def add(self, event: OperationEvent, common: Attributes) -> None:
        """Count an operation that has ended."""
        told = common if event.error is None else {**common, names.ERROR_TYPE: names.error_type(event.error)}
        self._duration.record(event.seconds, told)
        if event.retries:
            self._retries.add(event.retries, common)
            self._waited.record(event.waited, common)
        if event.conflict:
            self._conflicts.add(1, common)
        if event.error is not None:
            return
        if event.size is not None and event.messages is not None:
            self._messages.add(event.messages, common)
            self._bytes.add(event.size, common)
        elif event.messages is not None:
            self._rows.record(event.messages, common)
        if event.conversations is not None and names.GENAI_OPERATIONS.get(event.operation) == "delete_memory":
            self._removed.add(event.conversations, common)

    def _usages(self) -> Iterable[tuple[str, Usage]]:
        for provider, reference in self._watched:
            usage = reference()
            if usage is not None:
                yield provider, usage()

    def _of(self, field: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_options: CallbackOptions) -> Iterable[Observation]:
            sums: dict[str, int] = {}
            for provider, usage in self._usages():
                value = getattr(usage, field)
                if value is not None:
                    sums[provider] = sums.get(provider, 0) + value
            return [Observation(value, {names.POOL: provider}) for provider, value in sums.items()]

        return observe

    def _connections(self, _options: CallbackOptions) -> Iterable[Observation]:
        sums: dict[tuple[str, str], int] = {}
        for provider, usage in self._usages():
            if usage.connections is None:
                continue
            # Where nobody can tell which are used, all count as idle.
            busy = usage.busy or 0
            for state, value in (("used", busy), ("idle", max(0, usage.connections - busy))):
                sums[provider, state] = sums.get((provider, state), 0) + value
        return [
            Observation(value, {names.POOL: provider, names.STATE: state}) for (provider, state), value in sums.items()
        ]


_made: WeakKeyDictionary[MeterProvider, Metrics] = WeakKeyDictionary()
_making = threading.Lock()


def metrics(provider: MeterProvider, version: str) -> Metrics:
    """The metrics of a meter provider; a second set of the same names would not be collected."""
    with _making:
        found = _made.get(provider)
        if found is None:
            found = _made[provider] = Metrics(provider, version)
        return found
