"""What ships for the tests of others: the daemon without a process, recordings served as if live, a pytest plugin.

    memory_client       a daemon in this process, and the usual client connected to it
    scripted_provider   the provider that says what a script says
    serve_recording     a daemon that serves a recorded run as if it happened now

``*.trace.ndjson`` files are collected by pytest as soon as nous is installed (:mod:`nous.testing.pytest_plugin`).

What is named here is imported when it is asked for: pytest loads this package in every project that has nous installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nous.testing.memory import memory_client, serve_in_memory
    from nous.testing.recordings import ServedRecording, serve_recording
    from nous.testing.scripted import scripted_provider

__all__ = ["ServedRecording", "memory_client", "scripted_provider", "serve_in_memory", "serve_recording"]

_MODULES: Final = {
    "ServedRecording": "recordings",
    "memory_client": "memory",
    "scripted_provider": "scripted",
    "serve_in_memory": "memory",
    "serve_recording": "recordings",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
