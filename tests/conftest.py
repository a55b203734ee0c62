"""Shared fixtures of the whole test suite."""

from __future__ import annotations

import pytest
from hypothesis import settings

# No deadline per example: on a busy machine it would say more about the machine than about the code.
# --hypothesis-profile=deep (make test-full) tries many more examples.
settings.register_profile("daily", deadline=None)
settings.register_profile("deep", deadline=None, max_examples=5000)
settings.register_profile("replay-deep", deadline=None, max_examples=50_000)
settings.load_profile("daily")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
