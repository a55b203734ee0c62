"""Run by every Python that the gate starts, before anything else: notes each socket that leaves this machine."""

import os
import sys
from pathlib import Path


def _is_local(address: object) -> bool:
    if not isinstance(address, tuple):
        return True  # a Unix socket
    host = str(address[0])
    return host in ("localhost", "::1", "") or host.startswith("127.")


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    # A name that is looked up is a question to a server elsewhere, unless it is an address already.
    if event in ("socket.connect", "socket.sendto", "socket.bind"):
        address: object = arguments[1]
    elif event == "socket.getaddrinfo":
        address = (arguments[0],)
    else:
        return
    if not _is_local(address):
        with Path(os.environ["GATE_AUDIT_FILE"]).open("a", encoding="utf-8") as file:
            file.write(f"{event} {address!r} in {sys.argv}\n")


if "GATE_AUDIT_FILE" in os.environ:
    sys.addaudithook(_audit)
