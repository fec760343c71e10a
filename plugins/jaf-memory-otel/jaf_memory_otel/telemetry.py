"""`Telemetry`: the observer that opens a span around each operation, and counts it when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from importlib_metadata import version
from opentelemetry import context, trace
from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider, get_tracer_provider

from jaf_memory_core.observation import End, Operation, OperationEvent
from jaf_memory_core.records import Usage
from jaf_memory_otel import conventions as names
from jaf_memory_otel.metrics import Attributes, metrics


class Telemetry:
    """Spans and metrics of a provider's operations: names, times, counts, outcomes; no content.

    Args:
        tracer_provider, meter_provider: of OpenTelemetry; those of the process when absent.
        conversation_ids: whether spans bear the conversation's id.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        conversation_ids: bool = False,
    ) -> None:
        ours = version("jaf-memory-otel")
        tracers = tracer_provider if tracer_provider is not None else get_tracer_provider()
        self._tracer = tracers.get_tracer("jaf_memory", ours, schema_url=names.SCHEMA)
        self._metrics = metrics(meter_provider if meter_provider is not None else get_meter_provider(), ours)
        self._conversation_ids = conversation_ids
        self._common: dict[tuple[str, str], Attributes] = {}

    def watch(self, provider: str, usage: Callable[[], Usage]) -> None:
        """Ask the provider's backend for its connections whenever metrics are collected."""
        self._metrics.watch(provider, usage)

    def begin(self, operation: Operation) -> End:
        """Open a span; what it returns closes it, and counts the operation."""
        common = self._attributes(operation.provider, operation.operation)
        span = self._tracer.start_span(
            operation.operation,
            kind=SpanKind.INTERNAL if operation.provider == "memory" else SpanKind.CLIENT,
            attributes=self._of_span(operation, common),
        )
        # An iteration's span is nobody's parent: between its pages run things that are not its own.
        token = context.attach(trace.set_span_in_context(span)) if operation.encloses else None

        def end(event: OperationEvent) -> None:
            if token is not None:
                context.detach(token)
            if span.is_recording():
                _tell(span, event)
            span.end()
            self._metrics.add(event, common)

        return end

    def _attributes(self, provider: str, operation: str) -> Attributes:
        found = self._common.get((provider, operation))
        if found is None:
            found = {names.SYSTEM: names.system(provider), names.OPERATION: operation}
            self._common[provider, operation] = found
        return found

    def _of_span(self, operation: Operation, common: Attributes) -> Attributes:
        attributes = dict(common)
        genai = names.GENAI_OPERATIONS.get(operation.operation)
        if genai is not None:
            attributes[names.GENAI_OPERATION] = genai
        if self._conversation_ids and operation.conversation_id is not None:
            attributes[names.GENAI_CONVERSATION] = operation.conversation_id
        return attributes


def _tell(span: Span, event: OperationEvent) -> None:
    """Say on a span how its operation has ended. Of an error its kind is told, never its text."""
    if event.messages is not None:
        span.set_attribute(names.GENAI_RECORDS, event.messages)
        written = event.size is not None
        if not written or event.messages > 1:  # a batch of one is no batch, says the convention
            span.set_attribute(names.BATCH_SIZE if written else names.RETURNED_ROWS, event.messages)
    if event.size is not None:
        span.set_attribute(names.SIZE, event.size)
    if event.retries:
        span.set_attribute(names.ATTEMPTS, event.attempts)
    if event.error is not None:
        span.set_attribute(names.ERROR_TYPE, names.error_type(event.error))
        span.set_attribute(names.OUTCOME, event.outcome)
        span.set_status(Status(StatusCode.ERROR))
    if event.conflict:
        span.set_attribute(names.CONFLICT, value=True)
