"""The Python client: what a front end, a script or a test speaks to the daemon with.

async with Client.spawn(arguments=["--provider", "mock"]) as client:
    run = await client.call("prompt", text="Hello", wait=False)
    async for event in client.events(run["run_id"]):
        ...
"""

from nous.client.client import Client, Ready
from nous.client.errors import (
    ClientClosedError,
    CommandError,
    DaemonGoneError,
    EventsUnreadError,
    NotTheProtocolError,
    StartRefusedError,
)
from nous.client.inbox import EventStream
from nous.client.lines import Event, Response
from nous.client.pending import Pending

__all__ = [
    "Client",
    "ClientClosedError",
    "CommandError",
    "DaemonGoneError",
    "Event",
    "EventStream",
    "EventsUnreadError",
    "NotTheProtocolError",
    "Pending",
    "Ready",
    "Response",
    "StartRefusedError",
]
