"""What can go wrong with the model. Every message is one plain sentence for a person.

    ModelError
    +-- ModelFileError     the file cannot be used: the process ends with exit status 1
    |   +-- NotForCtransformers   ... by ctransformers, though llama.cpp may be able to
    +-- ModelUnavailable   no prompt can be answered: the model failed, or we are shutting down
    +-- QueueFull          too many prompts are waiting already
    +-- ClientQueueFull    too many of one client's prompts are waiting
    +-- PromptError        this prompt cannot be answered, others can
        +-- PromptEmpty
        +-- PromptTooLong

    FetchError             a model could not be fetched (fetch/, before any server runs)

Nothing here knows of HTTP; api/reply.py alone maps these classes to statuses.
"""


class ModelError(Exception):
    """Base of all: `str(error)` is the sentence to show, `reason` a word for counters."""

    reason = "other"


class ModelFileError(ModelError):
    """The model file is missing, damaged, or of a kind that no engine can load."""


class NotForCtransformers(ModelFileError):
    """The model file is complete, but ctransformers cannot load it or would run it wrongly."""


class ModelUnavailable(ModelError):
    """The model failed for good, or the process is shutting down."""

    reason = "unavailable"


class QueueFull(ModelError):
    """The queue is full."""

    reason = "queue_full"


class ClientQueueFull(ModelError):
    """One client's share of the queue is full."""

    reason = "client_queue_full"


class PromptError(ModelError):
    """This one prompt is refused."""


class PromptEmpty(PromptError):
    """The prompt has nothing but whitespace and control characters."""

    reason = "empty"


class PromptTooLong(PromptError):
    """The prompt has more tokens than the context has room for."""

    reason = "too_long"


# Why a prompt may be refused at once, in the words of the counters.
REASONS = tuple(
    error.reason
    for error in (ModelUnavailable, QueueFull, ClientQueueFull, PromptEmpty, PromptTooLong)
)


class FetchError(Exception):
    """The model could not be fetched; `str(error)` is one sentence for a person."""
