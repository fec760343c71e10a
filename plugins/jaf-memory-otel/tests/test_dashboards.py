"""The examples of Prometheus and Grafana name metrics and labels that there are, and show all of them."""

import asyncio
import json
import re
from pathlib import Path

from jaf_memory_testing.samples import talk
from opentelemetry.sdk.metrics.export import Histogram, Sum

from jaf_memory_core import BackendProvider, Message
from jaf_memory_core.backends.in_memory import InMemoryBackend
from jaf_memory_core.records import Usage

FOLDER = Path(__file__).parents[3] / "examples" / "monitoring"
UNITS = {"s": "_seconds", "By": "_bytes"}
NAME = re.compile(r"\b(?:db|jaf)_[a-z_]+")
OTHER_LABELS = {"error_type", "job", "le"}


class Shown(InMemoryBackend):
    """A store that has something of everything to tell, and refuses once."""

    waits = True

    def __init__(self):
        super().__init__()
        self.refuses = True

    def usage(self):
        """What is in hand."""
        return Usage(connections=2, most=4, busy=1, waiting=0, commits=1, committed=3)

    async def tail(self, tail):
        """Read the end."""
        if self.refuses:
            self.refuses = False
            raise ConnectionRefusedError
        return await super().tail(tail)


def prometheus_names(collected):
    """The names and labels that Prometheus makes of all metrics: dots are underscores, then unit, then kind."""
    series, labels = set(), set()
    for resource in collected.reader.get_metrics_data().resource_metrics:
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            name = metric.name.replace(".", "_") + UNITS.get(metric.unit, "")
            if isinstance(metric.data, Histogram):
                series |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"}
            elif isinstance(metric.data, Sum) and metric.data.is_monotonic:
                series.add(f"{name}_total")
            else:
                series.add(name)
            labels |= {key.replace(".", "_") for point in metric.data.data_points for key in point.attributes}
    return series, labels


async def everything(backend, telemetry):
    """Operations of which each metric tells something."""
    provider = BackendProvider(backend, observers=[telemetry])
    await provider.append_messages("c", talk(1), create=True)
    await provider.append_messages("c", [Message(role="user", content="x")], expected_version=9)
    await provider.get_recent_messages("c")
    await provider.delete_conversation("c")


def test_names_are_those_of_the_metrics(collected):
    """Dashboard and alerts name no series and no label that is not there, and the dashboard shows every metric."""
    backend = Shown()
    asyncio.run(everything(backend, collected.telemetry()))
    series, labels = prometheus_names(collected)
    dashboard = json.loads((FOLDER / "dashboard.json").read_text(encoding="utf-8"))
    shown = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    legends = " ".join(target["legendFormat"] for panel in dashboard["panels"] for target in panel["targets"])
    alerts = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    named = set(NAME.findall(" ".join((shown, legends, alerts, json.dumps(dashboard["templating"])))))
    assert named - series - labels == set()
    assert set(re.findall(r"{{ ?(?:\$labels\.)?(\w+)", legends + alerts)) <= labels | OTHER_LABELS
    metrics = {re.sub("(_seconds|_rows)_(bucket|count|sum)$", r"\1", name) for name in series}
    assert {name for name in metrics if name not in shown} == set()
    assert not set(NAME.findall("rate(jaf_memory_gone_total[5m])")) <= series | labels  # what is gone would be found
