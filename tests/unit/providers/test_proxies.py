"""Which proxy stands before a server: the variables, and what they are excepted for."""

from __future__ import annotations

import pytest

from nous.errors import NousError
from nous.providers.proxies import Proxy, find_proxy, is_excepted

URL = "https://api.example.com/v1"
PROXY = "http://proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "found"),
    [
        ({}, None),
        ({"https_proxy": PROXY}, Proxy(PROXY, "https_proxy")),
        ({"HTTPS_PROXY": PROXY}, Proxy(PROXY, "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://other.example", "https_proxy": PROXY}, Proxy(PROXY, "https_proxy")),
        ({"ALL_PROXY": "http://other.example", "HTTPS_PROXY": PROXY}, Proxy(PROXY, "HTTPS_PROXY")),
        ({"ALL_PROXY": PROXY}, Proxy(PROXY, "ALL_PROXY")),
        ({"HTTPS_PROXY": "  ", "all_proxy": PROXY}, Proxy(PROXY, "all_proxy")),
        ({"HTTPS_PROXY": "proxy.example:3128"}, Proxy(PROXY, "HTTPS_PROXY")),
        ({"HTTPS_PROXY": "http://user:pass@[::1]:1"}, Proxy("http://user:pass@[::1]:1", "HTTPS_PROXY")),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "example.com"}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "example.com", "no_proxy": "other.example"}, Proxy(PROXY, "HTTPS_PROXY")),
    ],
)
def test_variables(environ: dict[str, str], found: Proxy | None) -> None:
    assert find_proxy(URL, environ) == found


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "https://localhost/v1", "http://[::1]:8000/v1"])
def test_this_machine_is_never_reached_through_a_proxy(url: str) -> None:
    assert find_proxy(url, {"ALL_PROXY": "nonsense:x"}) is None


@pytest.mark.parametrize(
    "value",
    ["socks5://user:secret@proxy.example:1", "http://", "http://proxy:port", "http://a b", "http://[::1", "ftp://x"],
)
def test_a_wrong_variable_is_named_where_it_applies_and_its_value_never(value: str) -> None:
    with pytest.raises(NousError, match="HTTPS_PROXY") as caught:
        find_proxy(URL, {"HTTPS_PROXY": value})
    assert caught.value.code == "provider_error"
    assert "secret" not in str(caught.value)
    for environ in ({"HTTP_PROXY": value}, {"HTTPS_PROXY": value, "NO_PROXY": ".example.com"}):
        assert find_proxy(URL, environ) is None


def test_a_proxy_shows_no_password() -> None:
    assert "secret" not in repr(Proxy("http://user:secret@proxy", "HTTPS_PROXY"))


@pytest.mark.parametrize(
    ("host", "no_proxy", "excepted"),
    [
        ("api.example.com", "*", True),
        ("api.example.com", "example.com", True),
        ("api.example.com", ".example.com", True),
        ("api.example.com", "*.example.com", True),
        ("API.Example.com", "x, Api.EXAMPLE.com.", True),
        ("api.example.com", "other.example  api.example.com", True),
        ("api.example.com", "ample.com", False),
        ("api.example.com", "api.example.com:443", True),
        ("api.example.com", "api.example.com:80", False),
        ("api.example.com", "api.example.com:x", False),
        ("api.example.com", "", False),
        ("api.example.com", ".,:,[],/", False),
        ("api.example.com", "0.0.0.0/0", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("10.1.2.3", "10.1.2.9/24", True),
        ("10.1.2.3", "10.0.0.0/99, 11.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3:443", True),
        ("10.1.2.3", "10.1.2.3:444", False),
        ("10.1.2.3", "2.3", False),
        ("fd07:b51a:cc66:f0::7", "localhost,::1,fd07:b51a:cc66:f0::/64", True),
        ("fd07:b51a:cc66:f1::7", "fd07:b51a:cc66:f0::/64", False),
        ("fd07::7", "[fd07::7]", True),
        ("fd07::7", "[fd07::7]:443", True),
        ("fd07::7", "[fd07::7]:80", False),
        ("fd07::7", "[fd07::]/16", True),
        ("fd07:0:0::7", "FD07::0007", True),
        ("fe80::1%eth0", "fe80::/10", True),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
    ],
)
def test_exceptions(host: str, no_proxy: str, excepted: bool) -> None:
    assert is_excepted(host, 443, no_proxy) is excepted
