"""The server's Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llava.backends.protocol import Backend, Delta

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """All metrics of one server; ``write`` returns the text of /metrics."""

    def __init__(self, backend: Backend) -> None:
        disable_created_metrics()
        registry = self._registry = CollectorRegistry()
        self.answers = Counter("llava_answers", "Requests by how they ended", ["outcome"], registry=registry)
        self.open = Gauge("llava_requests_open", "Requests that are answered or wait here", registry=registry)
        self.queue = Gauge("llava_requests_queued", "Requests that wait for their turn here", registry=registry)
        self.prompt_tokens = Counter("llava_prompt_tokens", "Tokens of prompts, images included", registry=registry)
        self.image_tokens = Counter("llava_image_tokens", "Tokens of prompts that are images", registry=registry)
        self.cached_tokens = Counter("llava_cached_tokens", "Tokens of prompts known before", registry=registry)
        self.new_tokens = Counter("llava_generated_tokens", "Tokens of answers", registry=registry)
        self.first_token = Histogram(
            "llava_time_to_first_token_seconds", "From request to first token", buckets=_SECONDS, registry=registry
        )
        self.between_tokens = Histogram(
            "llava_time_between_tokens_seconds",
            "Between two pieces of an answer",
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self.whole = Histogram(
            "llava_request_seconds", "From request to the end of its answer", buckets=_SECONDS, registry=registry
        )
        registry.register(_BackendCollector(backend))

    def write(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class AnswerMetrics:
    """Records one answer's latency and token counts."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._began = self._last = time.perf_counter()
        self._is_first = True

    def observe(self, delta: Delta) -> None:
        """Records a delta: the time since the last one, and the usage if it has any."""
        now, metrics = time.perf_counter(), self._metrics
        (metrics.first_token if self._is_first else metrics.between_tokens).observe(now - self._last)
        self._is_first, self._last = False, now
        if delta.usage is not None:
            metrics.prompt_tokens.inc(delta.usage.prompt_tokens)
            metrics.image_tokens.inc(delta.usage.image_tokens)
            metrics.cached_tokens.inc(delta.usage.cached_tokens)
            metrics.new_tokens.inc(delta.usage.completion_tokens)

    def finish(self, outcome: str) -> None:
        """Records how the answer ended and how long it took in all."""
        self._metrics.answers.labels(outcome).inc()
        self._metrics.whole.observe(time.perf_counter() - self._began)


class _BackendCollector(Collector):
    """The engine's own counters and gauges, read at scrape time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Metric]:
        for name, value in self._backend.count().items():
            if name.endswith("_total"):
                yield CounterMetricFamily(f"llava_engine_{name[:-6]}", "The engine's count", value)
            else:
                yield GaugeMetricFamily(f"llava_engine_{name}", "The engine's gauge", value)
