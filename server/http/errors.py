"""What can be wrong with a request: each error carries its status and its one sentence.

    HttpError                     any status, any sentence
    +-- BadRequest                400  not HTTP as RFC 9112 defines it, or not what a route accepts
    +-- Unauthorized              401  carries WWW-Authenticate
    +-- Forbidden                 403
    +-- NotFound                  404
    +-- MethodNotAllowed          405  carries Allow
    +-- RequestTimeout            408
    +-- PreconditionFailed        412
    +-- ContentTooLarge           413
    +-- TargetTooLong             414
    +-- UnsupportedMediaType      415
    +-- ExpectationFailed         417
    +-- MisdirectedRequest        421
    +-- TooManyRequests           429  carries Retry-After
    +-- FieldsTooLarge            431
    +-- NotImplementedHere        501
    +-- Unavailable               503  carries Retry-After
    +-- VersionNotSupported       505

They are raised where the fault is known, and answered in one place: connection.py.
"""

Headers = tuple[tuple[str, str], ...]

TEXT_TYPE = "text/plain; charset=utf-8"
_RETRY_AFTER_S = 5  # about one short answer


class HttpError(Exception):
    """A response in waiting: `str(error)` is its body, one plain sentence."""

    status = 500
    content_type = TEXT_TYPE

    def __init__(self, sentence: str, headers: Headers = ()) -> None:
        super().__init__(sentence)
        self.headers = headers

    @property
    def body(self) -> bytes:
        """The body of the response."""
        return f"{self}\n".encode()


class BadRequest(HttpError):
    """RFC 9110 section 15.5.1."""

    status = 400


class Unauthorized(HttpError):
    """RFC 9110 section 15.5.2: must name a scheme (here RFC 6750)."""

    status = 401

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence, (("WWW-Authenticate", 'Bearer realm="Socrates"'),))


class Forbidden(HttpError):
    """RFC 9110 section 15.5.4."""

    status = 403


class NotFound(HttpError):
    """RFC 9110 section 15.5.5."""

    status = 404


class MethodNotAllowed(HttpError):
    """RFC 9110 section 15.5.6: must say which methods are allowed."""

    status = 405

    def __init__(self, allow: str) -> None:
        super().__init__(f"The methods allowed here are {allow}.", (("Allow", allow),))


class RequestTimeout(HttpError):
    """RFC 9110 section 15.5.9."""

    status = 408


class PreconditionFailed(HttpError):
    """RFC 9110 section 15.5.13."""

    status = 412


class ContentTooLarge(HttpError):
    """RFC 9110 section 15.5.14."""

    status = 413


class TargetTooLong(HttpError):
    """RFC 9110 section 15.5.15."""

    status = 414


class UnsupportedMediaType(HttpError):
    """RFC 9110 section 15.5.16."""

    status = 415


class ExpectationFailed(HttpError):
    """RFC 9110 section 15.5.18."""

    status = 417


class MisdirectedRequest(HttpError):
    """RFC 9110 section 15.5.20."""

    status = 421


class TooManyRequests(HttpError):
    """RFC 6585 section 4."""

    status = 429

    def __init__(self, sentence: str, retry_after_s: int = _RETRY_AFTER_S) -> None:
        super().__init__(sentence, (("Retry-After", str(retry_after_s)),))


class FieldsTooLarge(HttpError):
    """RFC 6585 section 5."""

    status = 431


class NotImplementedHere(HttpError):
    """RFC 9110 section 15.6.2."""

    status = 501


class Unavailable(HttpError):
    """RFC 9110 section 15.6.4."""

    status = 503

    def __init__(self, sentence: str, retry_after_s: int = _RETRY_AFTER_S) -> None:
        super().__init__(sentence, (("Retry-After", str(retry_after_s)),))


class VersionNotSupported(HttpError):
    """RFC 9110 section 15.6.6."""

    status = 505
