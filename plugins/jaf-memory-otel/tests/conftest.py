"""Telemetry that is kept in memory, and the four stores."""

import pytest
from jaf_memory_otel import Telemetry
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from services.stores import environ, postgres_server, postgres_settings, redis_server, redis_settings

__all__ = ["environ", "postgres_server", "postgres_settings", "redis_server", "redis_settings"]


class Collected:
    """What OpenTelemetry's SDK has collected of one observer."""

    def __init__(self):
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def telemetry(self, **options):
        """An observer that tells of its operations here."""
        return Telemetry(self.tracers, self.meters, **options)

    @property
    def spans(self):
        """All spans that have ended."""
        return self.exporter.get_finished_spans()

    def metrics(self):
        """Name → points, of all metrics."""
        found = {}
        data = self.reader.get_metrics_data()
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = list(metric.data.data_points)
        return found

    def total(self, name, **attributes):
        """The sum of a counter, or the count of a histogram, over the points that have the attributes."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        return sum(
            getattr(point, "count", None) if hasattr(point, "count") else point.value
            for point in self.metrics().get(name, ())
            if wanted.items() <= dict(point.attributes).items()
        )

    def close(self):
        """Let go of both."""
        self.meters.shutdown()
        self.tracers.shutdown()


@pytest.fixture
def collected():
    """Telemetry that is kept in memory."""
    made = Collected()
    yield made
    made.close()
