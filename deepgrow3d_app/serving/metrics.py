"""What Prometheus reads from ``/metrics``: how long clicks take, stage by stage, and what waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from statistics import median

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.5, 5.0, 10.0, 30.0)
LAST_CLICKS = 100
"""Clicks that the median is of."""


class Metrics:
    """Counts of one server; thread-safe."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "deepgrow3d_click_seconds",
            "Seconds that a click took, by stage: queue, read, pre, infer, invert, write, and total without the queue",
            ("stage",),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._clicks = Counter(
            "deepgrow3d_clicks",
            "Requests for a mask, by outcome: answered, refused, busy, superseded, cancelled, failed",
            ("outcome",),
            registry=self._registry,
        )
        self._last_s: deque[float] = deque(maxlen=LAST_CLICKS)
        self._n_answered = 0

    @property
    def n_answered(self) -> int:
        """Clicks that were answered since the start."""
        return self._n_answered

    @property
    def median_s(self) -> float | None:
        """What the last clicks took, queue and all; None before the first."""
        last_s = list(self._last_s)
        return median(last_s) if last_s else None

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Have ``value`` called whenever the metrics are read."""
        Gauge(f"deepgrow3d_{name}", meaning, registry=self._registry).set_function(value)

    def answered(self, latencies: Mapping[str, float]) -> None:
        """A click was answered; seconds by stage."""
        for stage, seconds in latencies.items():
            self._seconds.labels(stage).observe(seconds)
        self._clicks.labels("answered").inc()
        self._last_s.append(latencies.get("total", 0.0) + latencies.get("queue", 0.0))
        self._n_answered += 1

    def not_answered(self, outcome: str) -> None:
        """A click was not answered."""
        self._clicks.labels(outcome).inc()

    def text(self) -> bytes:
        """All of them, in the text format of Prometheus."""
        return generate_latest(self._registry)
