"""Metrics: a service's numbers as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from i2vgen_ms.service import Status
from i2vgen_ms.service.service import Stats

SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600)


class Metrics:
    """Counts what a Service tells its listener, in a registry of its own. `stats` is asked at every reading."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self.registry = CollectorRegistry()
        self._taken = Counter("i2vgen_ms_jobs_taken", "Jobs that were queued", ["kind"], registry=self.registry)
        self._refused = Counter(
            "i2vgen_ms_jobs_refused", "Requests that became no job", ["reason"], registry=self.registry
        )
        self._finished = Counter(
            "i2vgen_ms_jobs_finished", "Jobs that ended", ["kind", "state"], registry=self.registry
        )
        self._seconds = Histogram(
            "i2vgen_ms_job_seconds", "Time at work", ["kind"], buckets=SECONDS, registry=self.registry
        )
        self._waited = Histogram(
            "i2vgen_ms_wait_seconds", "Time in the queue", ["kind"], buckets=SECONDS, registry=self.registry
        )
        self.registry.register(_Now(stats))
        ProcessCollector(registry=self.registry)

    def listen(self, what: str, kind: str, why: str, status: Status | None) -> None:
        """A Service's listener."""
        if what == "taken":
            self._taken.labels(kind).inc()
        elif what == "refused":
            self._refused.labels(why).inc()
        elif status is not None:
            self._finished.labels(kind, why).inc()
            self._waited.labels(kind).observe(status.waited)
            if status.seconds:
                self._seconds.labels(kind).observe(status.seconds)

    def text(self) -> bytes:
        """All of them in Prometheus's text format."""
        return generate_latest(self.registry)


class _Now(Collector):
    """What is asked for instead of counted."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        stats = self._stats()
        yield GaugeMetricFamily("i2vgen_ms_queue_length", "Jobs that wait", value=stats.queued)
        yield GaugeMetricFamily("i2vgen_ms_queue_room", "Jobs that may wait", value=stats.room)
        workers = GaugeMetricFamily(
            "i2vgen_ms_worker", "1 for the state that a worker is in", labels=["device", "state"]
        )
        for device, state in stats.workers:
            workers.add_metric([device, state], 1)
        yield workers
