"""Where foreign failures become codes of the taxonomy: HTTP answers, vendors' error words, the client's exceptions.

Pure: the HTTP client is known here by the names of its exceptions only, so that nothing heavy is imported, and a
test proves that none of them is missing.  A cause is a fixed sentence, or the status with the vendor's words and its
own text, bounded and without keys (:mod:`nous.providers.vendor_errors`).
"""

import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.providers.vendor_errors import (
    IMAGE_STATUSES,
    SENTENCE_CHARS,
    SENTENCES,
    TRANSIENT_WORDS,
    WORDS,
    error_parts,
    find_error,
    is_quota_of_a_day,
    names_image,
    shown_text,
)

MAX_RETRY_AFTER_MS: Final = 24 * 60 * 60 * 1000
"""No server can send a run to sleep for longer than a day."""


class ErrorReply(Struct, frozen=True):
    """An HTTP answer that is not the stream nous asked for.  ``body`` is its beginning, bounded."""

    status: int
    content_type: str
    body: bytes
    retry_after_ms: int | None = None


CUT: Final = "cut: the stream ended before the answer did"

_FOREIGN: Final[dict[str, tuple[str, str]]] = {
    "ConnectTimeout": ("provider_unavailable", "connect: no answer in time"),
    "ReadTimeout": ("provider_unavailable", "idle: nothing was received in time"),
    "WriteTimeout": ("provider_unavailable", "idle: the request was not taken in time"),
    "PoolTimeout": ("provider_unavailable", "connect: no free connection"),
    "TimeoutException": ("provider_unavailable", "idle: no answer in time"),
    "ConnectError": ("provider_unavailable", "connect: the provider cannot be reached"),
    "ReadError": ("provider_unavailable", "cut: the connection broke"),
    "WriteError": ("provider_unavailable", "cut: the connection broke"),
    "CloseError": ("provider_unavailable", "cut: the connection broke"),
    "NetworkError": ("provider_unavailable", "cut: the connection broke"),
    "RemoteProtocolError": ("provider_unavailable", "cut: the answer ended early or was not HTTP"),
    "ProxyError": ("provider_unavailable", "connect: the proxy refused"),
    "LocalProtocolError": ("provider_error", "the request is not valid HTTP"),
    "ProtocolError": ("provider_error", "HTTP was not followed"),
    "UnsupportedProtocol": ("provider_error", "the address is neither http nor https"),
    "InvalidURL": ("provider_error", "the address is not valid"),
    "TooManyRedirects": ("provider_error", "the answer is a redirect"),
    "DecodingError": ("provider_error", "the answer cannot be decompressed"),
    "SSEError": ("provider_error", "malformed: the stream of events cannot be read"),
    "HTTPStatusError": ("provider_error", "the provider refused the request"),
    "CookieConflict": ("provider_error", "the provider's cookies conflict"),
    "TransportError": ("provider_unavailable", "cut: the connection broke"),
    "RequestError": ("provider_unavailable", "cut: the request failed"),
    "HTTPError": ("provider_unavailable", "cut: the request failed"),
    # What follows can only be a mistake of ours.
    "StreamConsumed": ("internal_error", "the answer was read twice"),
    "StreamClosed": ("internal_error", "the answer was read after its end"),
    "ResponseNotRead": ("internal_error", "the answer was not read"),
    "RequestNotRead": ("internal_error", "the request was not read"),
    "StreamError": ("internal_error", "the answer was read wrongly"),
}
"""Every exception class of the HTTP client, by name."""

_IMAGE_CODES: Final = frozenset({"provider_error", "provider_unavailable", "content_refused"})
"""The codes of failures that may come from an image; a context that is too long is compacted, whatever fills it."""

_WORD: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9.+-]{1,40}/[a-z0-9.+-]{1,40}")
_NUMBER: Final = re.compile(r"\d{1,9}(?:\.\d{1,9})?")


def fault_of_reply(reply: ErrorReply, words: Iterable[object] = (), sentence: object = None) -> NousError:
    """Return the error an HTTP answer means, together with the words and the sentence of the vendor's error object."""
    known = [word for word in _clean_words(words) if word != str(reply.status)]
    code = _code_of_words(known) or _code_of_status(reply.status)
    said = _code_of_sentence(sentence)
    if code == "provider_error" or (said == "context_overflow" and code == "provider_unavailable"):
        code = said or code
    refuses_image = code in _IMAGE_CODES and names_image(
        known, sentence, is_transient=reply.status not in IMAGE_STATUSES
    )
    if refuses_image and code == "provider_unavailable":
        code = "provider_error"
    return NousError(
        code,
        _cause(f"HTTP {reply.status}{_remark(reply)}", known, sentence),
        retry_after_ms=reply.retry_after_ms if code == "provider_unavailable" else None,
        image_refused=refuses_image,
    )


def fault_of_answer(reply: ErrorReply) -> NousError:
    """Return the error that an HTTP answer means whose body may hold a vendor's error object."""
    body = parse_object(reply.body)
    words, sentence = error_parts(body)
    if reply.status == 200 and find_error(body):
        return fault_in_stream(words, sentence)
    if reply.status < 400:
        return fault_of_reply(reply)
    return fault_of_reply(reply, words, sentence)


def fault_in_stream(words: Iterable[object], sentence: object = None) -> NousError:
    """Return the error that an error object inside a stream means; a number among ``words`` is an HTTP status."""
    found = list(words)
    for word in found:
        if isinstance(word, int) and 400 <= word <= 599:
            return fault_of_reply(ErrorReply(word, "", b""), (w for w in found if w is not word), sentence)
    known = _clean_words(found)
    transient = any(word.lower() in TRANSIENT_WORDS for word in known)
    code = _code_of_words(known) or _code_of_sentence(sentence)
    code = code or ("provider_unavailable" if transient else "provider_error")
    refuses_image = code in _IMAGE_CODES and names_image(known, sentence, is_transient=code == "provider_unavailable")
    if refuses_image and code == "provider_unavailable":
        code = "provider_error"
    return NousError(code, _cause("error in the stream", known, sentence), image_refused=refuses_image)


def _cause(what: str, words: list[str], sentence: object) -> str:
    text = shown_text(sentence)
    return " ".join([what, *words]) + (f": {text}" if text else "")


def fault_of_exception(error: Exception) -> NousError:
    """Map what the HTTP client, or the system under it, raised.  Never the exception's own text."""
    if isinstance(error, NousError):
        return error
    if _is_certificate_error(error):
        return NousError("provider_error", "TLS: the provider's certificate is not accepted")
    for cls in type(error).__mro__:
        if cls.__name__ in _FOREIGN and cls.__module__.partition(".")[0] == "httpx2":
            return client_fault(cls.__name__)
    if isinstance(error, OSError):
        return NousError("provider_unavailable", "cut: the connection broke")
    return NousError("internal_error", f"HTTP client: {type(error).__name__}")


def client_fault(name: str) -> NousError:
    """Return the error that stands in the table for an exception's name: nous's own client fails in the same words."""
    code, cause = _FOREIGN[name]
    return NousError(code, cause)


def is_cut(error: NousError) -> bool:
    """Whether the connection broke, as opposed to a peer that is silent or cannot be reached."""
    return error.code == "provider_unavailable" and (error.cause or "").startswith("cut")


def malformed(what: str) -> NousError:
    """Return ``provider_error`` for an answer that is not what it has to be."""
    return NousError("provider_error", f"malformed: {what}")


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object ``body`` is, or is a list of, or an empty one."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, dict) else {}


def parse_retry_after(value: str | None, date: str | None, now_s: float) -> int | None:
    """Return the milliseconds a Retry-After header asks for: seconds, or a date as seen from the answer's own.

    ``date`` is the answer's Date header; without one, ``now_s`` (seconds since 1970) stands for it.
    Source: RFC 9110, section 10.2.3.
    """
    if not value:
        return None
    if (wait_ms := parse_seconds(value.strip())) is not None:
        return wait_ms
    when = _timestamp(value)
    if when is None:
        return None
    since = _timestamp(date) if date else None
    return min(max(0, round((when - (now_s if since is None else since)) * 1000)), MAX_RETRY_AFTER_MS)


def parse_milliseconds(text: str) -> int | None:
    """Return a plain number of milliseconds, rounded up to a whole one, at most a day."""
    return min(math.ceil(float(text)), MAX_RETRY_AFTER_MS) if _NUMBER.fullmatch(text) else None


def parse_seconds(text: str) -> int | None:
    """Return a plain number of seconds in milliseconds, at most a day."""
    return min(round(float(text) * 1000), MAX_RETRY_AFTER_MS) if _NUMBER.fullmatch(text) else None


def _timestamp(text: str) -> float | None:
    from email.utils import parsedate_to_datetime

    try:
        when = parsedate_to_datetime(text)
        return _in_utc(when).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _in_utc(when: datetime) -> datetime:
    return when if when.tzinfo is not None else when.replace(tzinfo=UTC)


def _remark(reply: ErrorReply) -> str:
    if reply.status < 300:
        kind = reply.content_type if _MEDIA_TYPE.fullmatch(reply.content_type) else "no known type"
        return f": {kind}, not a plain event stream"
    return ": redirects are not followed" if reply.status < 400 else ""


def _code_of_status(status: int) -> str:
    if status in (401, 403):
        return "provider_auth"
    if status in (408, 429) or (status >= 500 and status not in (501, 505)):
        return "provider_unavailable"
    return "provider_error"


def _code_of_words(words: list[str]) -> str | None:
    for code, known in WORDS.items():
        if any(word.lower() in known for word in words):
            return code
    return "provider_error" if any(map(is_quota_of_a_day, words)) else None


def _code_of_sentence(sentence: object) -> str | None:
    if not isinstance(sentence, str):
        return None
    beginning = sentence[:SENTENCE_CHARS]
    return next((code for code, pattern in SENTENCES if pattern.search(beginning)), None)


def _clean_words(words: Iterable[object]) -> list[str]:
    """Return the words that look like a vendor's code, each once: short, and no sentence."""
    texts = (str(word) for word in words if isinstance(word, str | int) and not isinstance(word, bool))
    return list(dict.fromkeys(text for text in texts if _WORD.fullmatch(text)))


def _is_certificate_error(error: BaseException) -> bool:
    seen: BaseException | None = error
    while seen is not None:
        if type(seen).__name__ == "SSLCertVerificationError":
            return True
        seen = seen.__cause__ or seen.__context__
    return False
