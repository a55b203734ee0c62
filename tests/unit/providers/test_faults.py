"""Foreign failures become codes: none unmapped, none saying more than it may."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from email.utils import format_datetime, formatdate

import httpx2
import pytest

from nous.errors import NousError
from nous.providers import faults
from nous.providers.faults import (
    MAX_RETRY_AFTER_MS,
    ErrorReply,
    fault_in_stream,
    fault_of_exception,
    fault_of_reply,
)
from nous.providers.vendor_errors import error_parts, shown_text

HTTPX_EXCEPTIONS = sorted(
    {value for value in vars(httpx2).values() if isinstance(value, type) and issubclass(value, Exception)},
    key=lambda cls: cls.__name__,
)


def raised(cls: type[Exception]) -> Exception:
    """Make an exception without its constructor, which wants requests and responses."""
    error = cls.__new__(cls)
    error.args = ("sk-secret https://example.com",)
    return error


@pytest.mark.parametrize("cls", HTTPX_EXCEPTIONS)
def test_every_exception_of_httpx_has_a_row_of_its_own(cls: type[Exception]) -> None:
    error = fault_of_exception(raised(cls))
    assert (error.code, error.cause) == faults._FOREIGN[cls.__name__]
    assert "secret" not in str(error)


def test_no_row_stands_for_nothing() -> None:
    assert {cls.__name__ for cls in HTTPX_EXCEPTIONS} == set(faults._FOREIGN)


@pytest.mark.parametrize(
    ("cls", "code", "cause"),
    [
        (httpx2.ConnectError, "provider_unavailable", "connect"),
        (httpx2.ConnectTimeout, "provider_unavailable", "connect"),
        (httpx2.ReadTimeout, "provider_unavailable", "idle"),
        (httpx2.ReadError, "provider_unavailable", "cut"),
        (httpx2.RemoteProtocolError, "provider_unavailable", "cut"),
        (httpx2.LocalProtocolError, "provider_error", "the request"),
        (httpx2.StreamConsumed, "internal_error", "the answer"),
    ],
)
def test_what_the_important_ones_mean(cls: type[Exception], code: str, cause: str) -> None:
    error = fault_of_exception(raised(cls))
    assert error.code == code
    assert (error.cause or "").startswith(cause)


def test_exceptions_of_others() -> None:
    same = NousError("provider_error", "x")
    assert fault_of_exception(same) is same
    assert fault_of_exception(ConnectionResetError(104, "sk-secret")).code == "provider_unavailable"
    assert fault_of_exception(KeyError("sk-secret")).cause == "HTTP client: KeyError"


def test_a_name_alone_does_not_make_an_exception_httpx_own() -> None:
    other = type("ReadTimeout", (Exception,), {})
    assert fault_of_exception(other()).code == "internal_error"


def test_a_certificate_that_is_not_accepted_is_permanent() -> None:
    error = httpx2.ConnectError("x")
    error.__cause__ = ssl.SSLCertVerificationError("x")
    assert fault_of_exception(error).code == "provider_error"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (200, "provider_error"),
        (301, "provider_error"),
        (400, "provider_error"),
        (401, "provider_auth"),
        (402, "provider_error"),
        (403, "provider_auth"),
        (404, "provider_error"),
        (408, "provider_unavailable"),
        (409, "provider_error"),
        (413, "provider_error"),
        (422, "provider_error"),
        (429, "provider_unavailable"),
        (500, "provider_unavailable"),
        (502, "provider_unavailable"),
        (503, "provider_unavailable"),
        (504, "provider_unavailable"),
        (529, "provider_unavailable"),
    ],
)
def test_statuses(status: int, code: str) -> None:
    error = fault_of_reply(ErrorReply(status, "application/json", b"", retry_after_ms=5))
    assert error.code == code
    assert (error.cause or "").startswith(f"HTTP {status}")
    assert error.retry_after_ms == (5 if code == "provider_unavailable" else None)


@pytest.mark.parametrize(
    ("status", "words", "code"),
    [
        (400, ["context_length_exceeded", "invalid_request_error", "messages"], "context_overflow"),
        (400, [400, "exceed_context_size_error"], "context_overflow"),
        (400, ["content_filter"], "content_refused"),
        (400, ["ResponsibleAIPolicyViolation"], "content_refused"),
        (429, ["insufficient_quota", "insufficient_quota"], "provider_error"),
        (400, ["invalid_api_key"], "provider_auth"),
        (400, ["unsupported_value", "invalid_request_error"], "provider_error"),
    ],
)
def test_words_say_more_than_the_status(status: int, words: list[object], code: str) -> None:
    assert fault_of_reply(ErrorReply(status, "", b""), words).code == code


@pytest.mark.parametrize(
    ("status", "words", "sentence", "code"),
    [
        (400, ["invalid_request_error"], "prompt is too long: 208310 tokens > 200000 maximum", "context_overflow"),
        (
            400,
            ["INVALID_ARGUMENT"],
            "The input token count exceeds the maximum number of tokens allowed",
            "context_overflow",
        ),
        (400, [], "x" * 2000 + "exceeded model token limit", "context_overflow"),
        (400, [], "x" * 2048 + "exceeded model token limit", "provider_error"),
        (400, ["content_filter"], "prompt is too long: 1 tokens > 2 maximum", "content_refused"),
        (401, [], "prompt is too long: 1 tokens > 2 maximum", "provider_auth"),
        (500, [], "Content Exists Risk", "provider_unavailable"),
        (400, [], "your prompt is too long", "provider_error"),
        (400, [], {"no": "text"}, "provider_error"),
        (400, [], None, "provider_error"),
    ],
)
def test_a_sentence_is_looked_at_where_no_word_says_it(
    status: int, words: list[object], sentence: object, code: str
) -> None:
    error = fault_of_reply(ErrorReply(status, "", b""), words, sentence)
    assert error.code == code
    shown = f": {shown_text(sentence)}" if isinstance(sentence, str) else ""
    assert error.cause == " ".join([f"HTTP {status}", *map(str, words)]) + shown


@pytest.mark.parametrize(
    ("body", "words", "sentence"),
    [
        ({"error": {"message": "m", "type": "t", "code": "c"}}, ["c", "t"], "m"),
        ({"type": "error", "error": {"type": "t", "message": "m"}}, ["t"], "m"),
        ([{"error": {"code": 503, "status": "S", "message": "m", "details": [{"reason": "R"}]}}], [503, "S", "R"], "m"),
        ({"object": "error", "message": "m", "type": "t", "code": 400}, [400, "t"], "m"),
        ({"error": "m"}, [], "m"),
        ({"code": "a sentence", "error": "m"}, ["a sentence"], "m"),
        ({"detail": "m"}, [], "m"),
        ({"detail": [{"msg": "m", "type": "missing"}]}, ["missing"], "m"),
        ({"errors": [{"code": 7003, "message": "m"}]}, [7003], "m"),
        ({"Message": "m"}, [], "m"),
        ("m", [], "m"),
        ({}, [], None),
        (None, [], None),
    ],
)
def test_every_shape_of_an_error_object(body: object, words: list[object], sentence: object) -> None:
    found, said = error_parts(body)
    assert ([word for word in found if word is not None], said) == (words, sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "the prompt is too long: 5 tokens > 4 maximum",
        "Input is too long for requested model.",
        "Your input exceeds the context window of this model.",
        "Request too large for m: Limit 3, Requested 4. The input or output tokens must be reduced in order to run.",
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        "Please reduce the length of the messages or completion.",
        "Prompt contains 40000 tokens, too large for model with 32768 maximum context length",
        "invalid params, context window exceeds limit",
        "Range of input length should be [1, 30720]",
        "The decoder prompt (length 12324) is longer than the maximum model length of 8192.",
        "prompt too long; exceeded max context length by 4 tokens",
    ],
)
@pytest.mark.parametrize("status", [400, 413, 422, 429, 500])
def test_overflow_in_each_vendors_words_is_never_retried(status: int, sentence: str) -> None:
    assert fault_of_reply(ErrorReply(status, "", b""), [], sentence).code == "context_overflow"


def test_a_vendors_text_is_one_bounded_line_without_keys() -> None:
    text = "Bad key sk-abcdef123456\nhttps://user:pw@host, Bearer abc, AKIAIOSFODNN7EXAMPLE: claude-sonnet-4-5-20250929"
    shown = shown_text(text)
    for secret in ("sk-abcdef", "pw", "Bearer abc", "AKIA", "\n"):
        assert secret not in shown
    assert "claude-sonnet-4-5-20250929" in shown
    assert len(shown_text("\u00e4 " * 5000).encode()) <= 512
    assert shown_text({"no": "text"}) == ""


def test_a_sentence_inside_a_stream() -> None:
    assert fault_in_stream(["x"], "This model's maximum context length is 5 tokens").code == "context_overflow"
    assert fault_in_stream([400], "exceeded model token limit: 7").code == "context_overflow"
    assert fault_in_stream(["x"], "exceeded").code == "provider_error"


def test_only_words_get_into_the_cause() -> None:
    words = [
        "model_not_found",
        "the user said: secret",
        {"secret": 1},
        None,
        True,
        "x" * 65,
        "messages[0].content",
        "a\nb",
    ]
    assert fault_of_reply(ErrorReply(404, "", b""), words).cause == "HTTP 404 model_not_found messages[0].content"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ([None, "server_error"], "provider_unavailable"),
        (["rate_limit_exceeded"], "provider_unavailable"),
        ([429], "provider_unavailable"),
        ([502, "upstream"], "provider_unavailable"),
        ([401], "provider_auth"),
        ([400, "context_length_exceeded"], "context_overflow"),
        (["context_length_exceeded"], "context_overflow"),
        (["something_new"], "provider_error"),
        ([7], "provider_error"),
        ([], "provider_error"),
    ],
)
def test_errors_inside_a_stream(words: list[object], code: str) -> None:
    assert fault_in_stream(words).code == code


NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        (None, None, None),
        ("", None, None),
        ("0", None, 0),
        ("2", None, 2000),
        (" 2 ", None, 2000),
        ("0.25", None, 250),
        ("-1", None, None),
        ("1e9", None, None),
        ("soon", None, None),
        ("999999999", None, MAX_RETRY_AFTER_MS),
        ("9" * 5000, None, None),
        (formatdate(NOW.timestamp() + 7, usegmt=True), None, 7000),
        (formatdate(NOW.timestamp() - 7, usegmt=True), None, 0),
        (formatdate(NOW.timestamp() + 7, usegmt=True), formatdate(NOW.timestamp() + 4, usegmt=True), 3000),
        (formatdate(NOW.timestamp() + 7, usegmt=True), "no date", 7000),
        ("Fri, 02 Jan 2026 03:04:12 -0000", None, 7000),
        (format_datetime(datetime(9999, 1, 1, tzinfo=UTC)), None, MAX_RETRY_AFTER_MS),
        ("Fri, 99 Jan 2026 03:04:12 GMT", None, None),
    ],
)
def test_retry_after(value: str | None, date: str | None, expected: int | None) -> None:
    assert faults.parse_retry_after(value, date, NOW.timestamp()) == expected


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b"[]", b"null", b"\xff", b"[" * 100_000, b'{"a":' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_object_is_an_empty_one(body: bytes) -> None:
    assert isinstance(faults.parse_object(body), dict)


def test_an_object_in_a_list_is_found() -> None:
    assert faults.parse_object(b'[{"error":{"code":1}},2]') == {"error": {"code": 1}}


@pytest.mark.parametrize(
    ("text", "wait_ms"),
    [("2", 2000), ("0.25", 250), ("", None), ("-1", None), ("1s", None), ("9" * 9, MAX_RETRY_AFTER_MS)],
)
def test_seconds(text: str, wait_ms: int | None) -> None:
    assert faults.parse_seconds(text) == wait_ms
