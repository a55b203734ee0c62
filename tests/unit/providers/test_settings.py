"""Endpoints and headers: what is refused before a byte is sent."""

from __future__ import annotations

import pytest

from nous.errors import NousError
from nous.providers.settings import ProviderSettings, check_api_base, check_headers, is_header_value, is_loopback


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.8.7", "::1"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "example.com", "localhost.example.com", "0.0.0.0", "128.0.0.1", "10.0.0.1", "::2", "127.0.0.1.nip.io"]
)
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.example.com/v1", "https://api.example.com/v1"),
        ("https://api.example.com/v1/", "https://api.example.com/v1"),
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("http://localhost:11434/v1", "http://localhost:11434/v1"),
    ],
)
def test_good_endpoints(url: str, base: str) -> None:
    assert check_api_base(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.com/v1",
        "ftp://example.com",
        "file:///etc/passwd",
        "https://",
        "https://user:secret@example.com",
        "https://secret@example.com",
        "https://example.com/v1?key=secret",
        "https://example.com/v1#secret",
        "https://example.com:port/",
        "https://example.com:99999/",
        "https://[::1/",
        "https://exa mple.com/",
        "https://example.com/\nx",
    ],
)
def test_bad_endpoints_are_named_without_their_content(url: str) -> None:
    with pytest.raises(NousError) as caught:
        check_api_base(url)
    assert caught.value.code == "invalid_config"
    assert "secret" not in str(caught.value)


def test_plain_http_to_another_machine_must_be_allowed() -> None:
    with pytest.raises(NousError) as caught:
        check_api_base("http://example.com/v1")
    assert caught.value.code == "unsafe_operation"
    assert check_api_base("http://example.com/v1", allow_insecure=True) == "http://example.com/v1"


def test_headers_get_lower_case_names() -> None:
    assert check_headers({"X-Title": "nous", "HTTP-Referer": "https://example.com"}) == {
        "x-title": "nous",
        "http-referer": "https://example.com",
    }


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "3"},
        {"Transfer-Encoding": "chunked"},
        {"Host": "secret.example.com"},
        {"bad name": "secret"},
        {"": "secret"},
        {"x": "secret\r\ny: z"},
        {"x": "s\u00e9cret-secret"},
        {"x": " secret"},
        {"x": ""},
        {"X-A": "secret", "x-a": "secret"},
    ],
)
def test_headers_that_cannot_be_sent(headers: dict[str, str]) -> None:
    with pytest.raises(NousError) as caught:
        check_headers(headers)
    assert caught.value.code == "invalid_config"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "good"), [("sk-1", True), ("a b", True), ("a\n", False), (" a", False), ("\x00", False)]
)
def test_header_values(value: str, good: bool) -> None:
    assert is_header_value(value) is good


def test_settings_do_not_show_their_secrets() -> None:
    settings = ProviderSettings(model="m", api_key="sk-secret", headers={"x-key": "secret"})
    assert "secret" not in repr(settings)
    assert "secret" not in str(settings)
