"""The state of the server: /healthz, /readyz, /status and /metrics. Owns nothing."""

import json
from collections.abc import Callable
from typing import Any

from server import __version__
from server.api.metrics import Metrics
from server.http.errors import Unavailable
from server.http.exchange import FRESH_HEADERS, JSON_HEADERS, Exchange
from server.model.job import Outcome, Progress
from server.model.worker import State, Worker


class Monitoring:
    """Answers questions about the server.

    Args:
        worker: where most of the state comes from.
        metrics: what /metrics shows.
        model_name: what /status calls the model.
        count_connections: returns how many are open.
    """

    def __init__(
        self,
        worker: Worker,
        metrics: Metrics,
        model_name: str,
        count_connections: Callable[[], int],
    ) -> None:
        self._worker = worker
        self._metrics = metrics
        self._model_name = model_name
        self._count_connections = count_connections

    def healthz(self, exchange: Exchange) -> None:
        """Report that the process is alive."""
        exchange.respond_text(200, "ok")

    def readyz(self, exchange: Exchange) -> None:
        """Report whether a prompt would be accepted.

        Raises:
            Unavailable: if not.
        """
        if self._worker.is_closing:
            raise Unavailable("The server is shutting down.")
        if self._worker.state is not State.READY:
            raise Unavailable(f"The model is {self._worker.state.value}.")
        if not self._worker.has_room:
            raise Unavailable("The queue is full.")
        exchange.respond_text(200, "ready")

    def metrics(self, exchange: Exchange) -> None:
        """Report all metrics, for Prometheus."""
        exchange.respond(
            200,
            [("Content-Type", self._metrics.content_type), *FRESH_HEADERS],
            self._metrics.show(),
        )

    def status(self, exchange: Exchange) -> None:
        """Report the server's state as JSON, for people and the page."""
        worker = self._worker
        current = worker.current
        status = {
            "version": __version__,
            "model": self._model_name,
            "state": worker.state.value,
            "busy": current is not None,
            "waiting": worker.waiting,
            "connections": self._count_connections(),
            "loading": _describe_loading(worker),
            "threads": worker.threads,
            "cooling": _describe_cooling(worker),
            "tokens_per_second": None if worker.speed is None else round(worker.speed, 2),
            "current": None if current is None else _describe_progress(current),
            "last": None if worker.last is None else _describe_outcome(worker.last),
            "prompts": worker.counts,
        }
        exchange.respond(200, JSON_HEADERS, json.dumps(status).encode() + b"\n")


def _describe_loading(worker: Worker) -> dict[str, Any] | None:
    if worker.state is not State.LOADING:
        return None
    return {"step": worker.loading.describe(), "share": round(worker.loading.share, 3)}


def _describe_cooling(worker: Worker) -> dict[str, Any] | None:
    cooling = worker.cooling
    if cooling is None:
        return None
    celsius = cooling.celsius
    return {
        "celsius": None if celsius is None else round(celsius, 1),
        "duty": round(cooling.duty, 3),
    }


# Nothing of the prompt, neither here nor of the last one: /status is for everybody.
def _describe_progress(progress: Progress) -> dict[str, Any]:
    return {"stage": progress.stage.value, "tokens": progress.tokens}


def _describe_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "finish": outcome.finish.value,
        "stage": outcome.stage.value,
        "tokens": outcome.tokens,
        "queue_ms": round(1000 * outcome.queue_s, 1),
        "decode_ms": round(1000 * outcome.decode_s, 1),
    }
