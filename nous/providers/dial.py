"""Sockets to a provider: resolved, connected, and for https wrapped in TLS, none of it blocking.

Where a name has several addresses they are tried a quarter of a second apart until one answers, the families by
turns.  Source: RFC 8305 (Happy Eyeballs), sections 4 and 5.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from functools import partial
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple

import anyio

from nous.system.threads import WorkThreads

STAGGER_S: Final = 0.25
"""How long an address is tried alone.  Source: RFC 8305, section 8."""

_UNDER_WAY: Final = frozenset({errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR})


_resolver_threads: Final = WorkThreads()
"""A resolver may take a minute.  The loop's own executor is joined when the interpreter exits; these are not."""


class _Address(NamedTuple):
    family: int
    sockaddr: Any


def make_tls_context() -> ssl.SSLContext:
    """Return the context for servers whose certificates must be good.  Blocks for some tens of milliseconds.

    Who is believed: ``SSL_CERT_FILE`` or ``SSL_CERT_DIR`` if set, else the list that comes with certifi.

    Raises:
        OSError: the file or directory cannot be read.
    """
    if file := os.environ.get("SSL_CERT_FILE"):
        context = ssl.create_default_context(cafile=file)
    elif directory := os.environ.get("SSL_CERT_DIR"):
        context = ssl.create_default_context(capath=directory)
    else:
        import certifi

        context = ssl.create_default_context(cafile=certifi.where())
    context.set_alpn_protocols(["http/1.1"])
    return context


async def dial(host: str, port: int) -> socket.socket:
    """Return a connected socket.

    Raises:
        OSError: the name has no address, or none of its addresses answers; the first failure is told.
    """
    addresses = await _resolve(host, port)
    return await _connect(addresses[0]) if len(addresses) == 1 else await _race(addresses)


async def secure(plain: socket.socket, context: ssl.SSLContext, host: str) -> ssl.SSLSocket:
    """Take over ``plain`` and return it wrapped in TLS, after the handshake.  It is closed if that fails.

    Raises:
        OSError: ``ssl.SSLError`` is one too.
    """
    sock: socket.socket = plain
    try:
        sock = tls = context.wrap_socket(plain, server_hostname=host, do_handshake_on_connect=False)
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                await anyio.wait_readable(tls)
            except ssl.SSLWantWriteError:
                await anyio.wait_writable(tls)
            else:
                return tls
    except BaseException:
        sock.close()
        raise


async def _resolve(host: str, port: int) -> list[_Address]:
    found: Sequence[tuple[Any, ...]]
    try:
        # An address is no question for a resolver, which would cost a thread.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        found = await _resolver_threads.run(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    addresses = [_Address(row[0], row[4]) for row in found]
    first = addresses[0].family
    by_turns = zip_longest(
        (a for a in addresses if a.family == first),
        (a for a in addresses if a.family != first),
    )
    return [address for address in chain.from_iterable(by_turns) if address is not None]


async def _connect(address: _Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = sock.connect_ex(address.sockaddr)
        if code in _UNDER_WAY:
            await anyio.wait_writable(sock)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
    except BaseException:
        sock.close()
        raise
    return sock


async def _race(addresses: list[_Address]) -> socket.socket:
    connected: list[socket.socket] = []
    failures: list[OSError] = []

    async def attempt(address: _Address, failed: anyio.Event) -> None:
        try:
            connected.append(await _connect(address))
        except OSError as error:
            failures.append(error)
            failed.set()
        else:
            tasks.cancel_scope.cancel()

    try:
        async with anyio.create_task_group() as tasks:
            for address in addresses:
                failed = anyio.Event()
                tasks.start_soon(attempt, address, failed)
                with anyio.move_on_after(STAGGER_S):
                    await failed.wait()
    except BaseException:
        _close_all(connected)
        raise
    if not connected:
        raise failures[0]
    # Two may have been connected in the same moment.
    _close_all(connected[1:])
    return connected[0]


def _close_all(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        sock.close()
