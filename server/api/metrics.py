"""Metrics over the life of the process, in Prometheus' format, through prometheus-client.

Owns one registry: nothing is global, so that tests can have several servers. Label values
come from our own enumerations only, never from a request, so their number is bounded.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from server import __version__
from server.model.errors import REASONS, ModelError
from server.model.job import ENDINGS, Outcome
from server.model.machine.thermometer import Thermometer
from server.model.worker import Worker

_NAN = float("nan")
_WAITS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_CANCELS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_SPEEDS = (0.5, 1, 2, 3, 4, 5, 7.5, 10, 15, 25, 50, 100, 200, 400)
_LAGS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)


class Metrics:
    """Counts every outcome; reads everything else when it is shown.

    Args:
        worker: whose queue and threads are shown.
        model_name: a label of `socrates_info`.
        count_connections: returns how many are open.
        thermometer: the machine's.
    """

    content_type: str = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(
        self,
        worker: Worker,
        model_name: str,
        count_connections: Callable[[], int],
        thermometer: Thermometer,
    ) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._count_outcomes(registry)
        _show(registry, "waiting_prompts", "Prompts waiting for the model", lambda: worker.waiting)
        _show(
            registry,
            "busy",
            "1 while a prompt is in prefill or decode",
            lambda: worker.current is not None,
        )
        _show(registry, "threads", "Threads that ggml uses per token", lambda: worker.threads or 0)
        _show(registry, "connections", "Open connections", count_connections)
        _show(
            registry,
            "temperature_celsius",
            "The machine's hottest thermal zone, NaN if there is none",
            lambda: _or_nan(thermometer.celsius()),
        )
        _show(
            registry,
            "duty_ratio",
            "Share of the time in which the model may work, below 1 to limit heat",
            lambda: worker.cooling.duty if worker.cooling else 1.0,
        )
        info = Gauge("socrates_info", "Always 1", ["version", "model"], registry=registry)
        info.labels(__version__, model_name).set(1)

    def _count_outcomes(self, registry: CollectorRegistry) -> None:
        def counter(name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(f"socrates_{name}", description, labels, registry=registry)

        def histogram(name: str, description: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"socrates_{name}", description, buckets=buckets, registry=registry)

        self._prompts = counter("prompts", "Prompts that ended, by ending", ("ending",))
        self._refused = counter("refused", "Prompts refused at once, by reason", ("reason",))
        # From the start, or the first failure would not be an increase (Prometheus, "Avoid missing
        # metrics").
        for ending in ENDINGS:
            self._prompts.labels(ending)
        for reason in REASONS:
            self._refused.labels(reason)
        self._prompt_tokens = counter("prompt_tokens", "Tokens of prompts")
        self._cached_tokens = counter("cached_tokens", "Those reused from a KV cache")
        self._tokens = counter("tokens", "Tokens of answers")
        self._queue = histogram("queue_seconds", "From a prompt's arrival to its start", _WAITS_S)
        self._first = histogram(
            "first_text_seconds", "From a prompt's arrival to its first text", _WAITS_S
        )
        self._speed = histogram("tokens_per_second", "Speed of an answer", _SPEEDS)
        self._cancel = histogram(
            "cancel_seconds", "From a client's disconnect to a free model", _CANCELS_S
        )
        self._lag = histogram(
            "loop_lag_seconds", "How late the event loop wakes up, measured once a second", _LAGS_S
        )

    def observe(self, outcome: Outcome) -> None:
        """Count a prompt that ended."""
        self._prompts.labels(outcome.ending).inc()
        self._prompt_tokens.inc(outcome.prompt_tokens)
        self._cached_tokens.inc(outcome.cached_tokens)
        self._tokens.inc(outcome.tokens)
        self._queue.observe(outcome.queue_s)
        for histogram, value in (
            (self._first, outcome.first_text_s),
            (self._speed, outcome.tokens_per_second),
            (self._cancel, outcome.cancel_s),
        ):
            if value is not None:
                histogram.observe(value)

    def observe_refusal(self, error: ModelError) -> None:
        """Count a prompt that was refused at once."""
        self._refused.labels(error.reason).inc()

    def observe_lag(self, seconds: float) -> None:
        """Count one measurement of the event loop's lag."""
        self._lag.observe(seconds)

    def show(self) -> bytes:
        """All metrics, in the text format 0.0.4."""
        return generate_latest(self._registry)


def _show(
    registry: CollectorRegistry, name: str, description: str, value: Callable[[], float]
) -> None:
    Gauge(f"socrates_{name}", description, registry=registry).set_function(value)


def _or_nan(value: float | None) -> float:
    return _NAN if value is None else value
