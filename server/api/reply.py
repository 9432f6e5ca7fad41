"""Asks the model on behalf of a request, and writes the answer as it comes.

Owns one answer under way, for /prompt and for the API alike (they differ in their `Form`), the
mapping of the model's errors to statuses, and the link from a client that disconnects to the job
that must then end.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from server.api.messages import ContextExceeded, NothingSaid
from server.http.clients import share_of
from server.http.deadline import Deadline, Loop
from server.http.errors import (
    HttpError,
    TooManyRequests,
    Unavailable,
)
from server.http.exchange import Exchange
from server.http.response import Header
from server.model.errors import (
    ClientQueueFull,
    ModelError,
    ModelUnavailable,
    PromptEmpty,
    PromptTooLong,
    QueueFull,
)
from server.model.job import Finish, Outcome
from server.model.prompt.conversation import Conversation
from server.model.sampler import Sampling
from server.model.worker import Worker

_HTTP_OF: dict[type[ModelError], Callable[[str], HttpError]] = {
    PromptEmpty: NothingSaid,
    PromptTooLong: ContextExceeded,
    QueueFull: Unavailable,
    ClientQueueFull: TooManyRequests,
    ModelUnavailable: Unavailable,
}


def to_http_error(error: ModelError) -> HttpError:
    """Convert `error` to the HTTP error that the client gets."""
    return _HTTP_OF[type(error)](str(error))


class Form(Protocol):
    """The format of one kind of answer."""

    headers: Sequence[Header]
    is_streamed: bool  # False: nothing is sent before the end
    # Sent while a stream waits, which then begins at once; empty if it would be taken for text.
    sign_of_life: bytes

    def begin(self) -> bytes:
        """What comes before the first piece of a stream; may be empty."""

    def piece(self, text: str) -> bytes:
        """The next piece of a stream."""

    def end(self, outcome: Outcome, text: str) -> bytes:
        """The end of a stream, may be empty; otherwise the whole body, with the whole `text`."""

    def failure(self, error: HttpError) -> bytes:
        """The end of a stream that fails; empty if only a broken end can say so."""

    def trailers(self, outcome: Outcome) -> Sequence[Header]:
        """The trailer fields of a stream."""


class Reply:
    """Writes one answer to its exchange (`server.model.job.Listener`).

    Args:
        exchange: takes the answer.
        form: its format.
        loop: the event loop.
        ping_s: seconds of silence, before the first piece, after which a stream gives a sign of
            life: clients and proxies give up on a server that says nothing for a minute or less.
            None gives none: nothing is sent before the first piece.
    """

    def __init__(self, exchange: Exchange, form: Form, loop: Loop, ping_s: float | None) -> None:
        self._exchange = exchange
        self._form = form
        self._ping_s = ping_s
        self._silence = Deadline(loop, self._ping)
        self._text = ""  # of an answer that is not streamed

    def wait(self) -> None:
        """Note that the answer is under way: a stream begins now, or gives a sign of life later."""
        if self._form.is_streamed and self._ping_s is not None:
            if self._form.sign_of_life:
                self._start()
            self._silence.set(self._ping_s)

    def on_text(self, text: str) -> None:
        """Send a piece; the head goes with it, unless it had to go earlier."""
        self._silence.cancel()
        if self._form.is_streamed:
            self._start()
            self._exchange.write(self._form.piece(text))
        else:
            self._text += text

    def on_end(self, outcome: Outcome) -> None:
        """Finish, fail, or abort the stream."""
        self._silence.cancel()
        if outcome.error is not None:
            self._fail(to_http_error(outcome.error))
        elif outcome.finish in (Finish.STOP, Finish.LENGTH):
            self._finish(outcome)
        else:
            self._exchange.abort()
        self._exchange.log(describe_ending(outcome))

    def _start(self) -> None:
        if not self._exchange.head_sent:
            self._exchange.start(self._form.headers)
            if first := self._form.begin():
                self._exchange.write(first)

    def _ping(self) -> None:
        self._start()
        if self._form.sign_of_life:
            self._exchange.write(self._form.sign_of_life)
            self._silence.set(self._ping_s)
        else:
            self._exchange.flush()

    # An error that comes before the head keeps its status.
    def _fail(self, error: HttpError) -> None:
        if self._exchange.head_sent and (last := self._form.failure(error)):
            self._exchange.write(last)
            self._exchange.finish()
        else:
            self._exchange.fail(error)

    def _finish(self, outcome: Outcome) -> None:
        if not self._form.is_streamed:
            body = self._form.end(outcome, self._text)
            self._exchange.respond(200, self._form.headers, body)
            return
        self._start()
        if last := self._form.end(outcome, ""):
            self._exchange.write(last)
        self._exchange.finish(self._form.trailers(outcome))


class Replies:
    """Submits conversations and sends the replies.

    Args:
        worker: answers them.
        loop: the event loop.
        on_refused: called with the error of each that is refused at once.
        ping_s: see `Reply`.
    """

    def __init__(
        self,
        worker: Worker,
        loop: Loop,
        on_refused: Callable[[ModelError], None],
        ping_s: float | None,
    ) -> None:
        self._worker = worker
        self._loop = loop
        self._on_refused = on_refused
        self._ping_s = ping_s

    def begin(
        self, exchange: Exchange, conversation: Conversation, sampling: Sampling, form: Form
    ) -> None:
        """Queue the conversation; it is cancelled when the exchange's client disconnects.

        Raises:
            HttpError: if it is refused at once.
        """
        reply = Reply(exchange, form, self._loop, self._ping_s)
        share = share_of(exchange.client)
        try:
            job = self._worker.submit(conversation, sampling, reply, share)
        except ModelError as error:
            self._on_refused(error)
            raise to_http_error(error) from error
        exchange.logs_later = True
        exchange.on_disconnect = lambda: self._worker.cancel(job)
        reply.wait()


def describe_ending(outcome: Outcome) -> dict[str, object]:
    """What the log says about an answer: never a word of it."""
    speed = outcome.tokens_per_second
    return {
        "ended": outcome.ending,
        "tokens": outcome.tokens,
        "tokens_per_s": None if speed is None else round(speed, 1),
        "queue_ms": round(1000 * outcome.queue_s, 1),
    }
