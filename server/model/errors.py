"""What can go wrong in the model room. Every message is one plain sentence for a person.

    ModelError
    +-- ModelFileError     the file cannot be used: the process ends with exit status 1
    +-- ModelUnavailable   no prompt can be answered: the model failed, or we are shutting down
    +-- QueueFull          too many prompts wait already
    +-- ClientQueueFull    too many of one client's do
    +-- PromptError        this prompt cannot be answered, others can
        +-- PromptEmpty
        +-- PromptTooLong

    FetchError             a model could not be brought (fetch/, before any server runs)

Nothing here knows HTTP; api/reply.py alone maps these classes to statuses.
"""


class ModelError(Exception):
    """Base of all: `str(error)` is the sentence to show, `reason` a word for counters."""

    reason = "other"


class ModelFileError(ModelError):
    """The model file is missing, damaged or of a kind ctransformers cannot load."""


class ModelUnavailable(ModelError):
    """The model failed for good, or the process is shutting down."""

    reason = "unavailable"


class QueueFull(ModelError):
    """As many prompts wait as may wait."""

    reason = "queue_full"


class ClientQueueFull(ModelError):
    """As many prompts of one client wait as may wait of one."""

    reason = "client_queue_full"


class PromptError(ModelError):
    """This one prompt is refused."""


class PromptEmpty(PromptError):
    """Nothing is left of the prompt but blanks and control characters."""

    reason = "empty"


class PromptTooLong(PromptError):
    """The prompt has more tokens than the context has room for."""

    reason = "too_long"


class FetchError(Exception):
    """The model could not be brought; `str(error)` is one sentence for a person."""
