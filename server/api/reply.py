"""Hands a conversation to the model on behalf of a request, and errors back to HTTP.

Owns the mapping of the model room's errors to statuses, and the tie between a client that
leaves and the job that then must end. Both ways of asking, prompt.py and completions.py,
go through here.
"""

from collections.abc import Callable

from server.api.clients import ClientAddresses
from server.http.errors import (
    BadRequest,
    ContentTooLarge,
    HttpError,
    TooManyRequests,
    Unavailable,
)
from server.http.exchange import Exchange
from server.model.errors import (
    ClientQueueFull,
    ModelError,
    ModelUnavailable,
    PromptEmpty,
    PromptTooLong,
    QueueFull,
)
from server.model.job import Listener, Outcome
from server.model.prompt.conversation import Conversation
from server.model.sampler import Sampling
from server.model.worker import Worker

RETRY_AFTER_S = 5  # about one short answer

_HTTP_OF: dict[type[ModelError], Callable[[str], HttpError]] = {
    PromptEmpty: BadRequest,
    PromptTooLong: ContentTooLarge,
    QueueFull: lambda sentence: Unavailable(sentence, RETRY_AFTER_S),
    ClientQueueFull: lambda sentence: TooManyRequests(sentence, RETRY_AFTER_S),
    ModelUnavailable: lambda sentence: Unavailable(sentence, RETRY_AFTER_S),
}


def as_http(error: ModelError) -> HttpError:
    """The response that `error` means."""
    return _HTTP_OF[type(error)](str(error))


class Asking:
    """Submits conversations.

    Args:
        worker: answers them.
        addresses: tells whose they are.
        on_refused: hears of each that is refused at once.
    """

    def __init__(
        self,
        worker: Worker,
        addresses: ClientAddresses,
        on_refused: Callable[[ModelError], None],
    ) -> None:
        self._worker = worker
        self._addresses = addresses
        self._on_refused = on_refused

    def ask(
        self,
        conversation: Conversation,
        sampling: Sampling,
        listener: Listener,
        exchange: Exchange,
    ) -> None:
        """Queue the conversation; it is cancelled when the exchange's client leaves.

        Raises:
            HttpError: if it is refused at once.
        """
        client = self._addresses.of(exchange.peer, exchange.head.get(b"x-forwarded-for"))
        try:
            job = self._worker.submit(conversation, sampling, listener, client)
        except ModelError as error:
            self._on_refused(error)
            raise as_http(error) from error
        exchange.tells_its_end = True
        exchange.on_disconnect = lambda: self._worker.cancel(job)


def describe_ending(outcome: Outcome) -> dict[str, object]:
    """What the log tells of an answer: never a word of it."""
    speed = outcome.tokens_per_second
    return {
        "ended": outcome.ending,
        "tokens": outcome.tokens,
        "tokens_per_s": None if speed is None else round(speed, 1),
        "queue_ms": round(1000 * outcome.queue_s, 1),
    }
