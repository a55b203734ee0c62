"""Requests to stop: the first names the reason, a later one can only be more urgent."""

from __future__ import annotations

from nous.runtime.stop import StopRequest


def test_the_first_request_names_the_reason() -> None:
    stop = StopRequest()
    stop.request("shutdown")
    stop.request("eof")
    assert (stop.reason, stop.requested.is_set(), stop.urgent.is_set()) == ("shutdown", True, False)


def test_a_later_one_may_be_more_urgent() -> None:
    stop = StopRequest()
    stop.request("eof")
    stop.request("signal", abort=True)
    stop.request("shutdown")
    assert (stop.reason, stop.urgent.is_set()) == ("eof", True)
