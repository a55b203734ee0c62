"""The bodies of the interaction tests run over every transport alike."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from tests.support.harness import CARRIERS, Carrier, OpenPeer, Peer, open_peer
from tests.support.home import Home, Setup


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture(params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> Carrier:
    value: Carrier = request.param
    return value


@pytest.fixture
def nous(carrier: Carrier, home: Home) -> OpenPeer:
    """``async with nous(Setup(...)) as peer``: a daemon, and a connection to it."""

    def start(setup: Setup | None = None) -> AbstractAsyncContextManager[Peer]:
        return open_peer(carrier, home, setup)

    return start
