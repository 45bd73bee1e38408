"""Metrics for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from odesteer.serving.engine import Engine
from odesteer.serving.engine.output import OutputChunk

_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The metrics of one server.

    Attributes:
        registry: holds all of them.
        requests: by endpoint and status.
        seconds: how long requests take, by endpoint.
        prompt_tokens: tokens of prompts.
    """

    def __init__(self, engine: Engine) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "odesteer_requests",
            "Requests that were answered.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "odesteer_request_seconds",
            "Time from the request to the end of the answer.",
            ("endpoint",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            "odesteer_prompt_tokens", "Tokens of prompts.", registry=self.registry
        )
        self._generated = Counter(
            "odesteer_generated_tokens", "Tokens that were written.", registry=self.registry
        )
        self._steered = Counter(
            "odesteer_steered_tokens",
            "Tokens that a steerer acted on, of texts that came to their end.",
            ("steerer",),
            registry=self.registry,
        )
        waiting = Gauge("odesteer_queue", "Texts that wait.", registry=self.registry)
        waiting.set_function(lambda: engine.n_waiting)
        running = Gauge("odesteer_running", "Texts that are written.", registry=self.registry)
        running.set_function(lambda: engine.n_running)

    def count(self, chunk: OutputChunk) -> None:
        """Count generated and steered tokens."""
        self._generated.inc(len(chunk.tokens))
        for summary in chunk.steering:
            if summary.quantity is not None:
                self._steered.labels(summary.name).inc(summary.tokens)
