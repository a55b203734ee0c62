"""What other packages and Python itself would print on stderr becomes records of ours.

stderr carries JSON lines only (protocol v1, section 3), but asyncio and httpx2 use :mod:`logging`, and Python prints
warnings and the errors it cannot raise anywhere.  Their texts may quote content, so a record holds the logger's name,
the text's first line and the exception's type and place, never its message.
"""

from __future__ import annotations

import logging
import sys
import threading

from nous.telemetry.log import get_log

_log = get_log("foreign")


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # The template, not the message: arguments are values, and values may be content.
        text = str(record.msg).partition("\n")[0]
        error = record.exc_info[1] if record.exc_info else None
        log = _log.error if record.levelno >= logging.ERROR else _log.warning
        log("foreign_record", logger=record.name, text=text, **({} if error is None else {"error": error}))


def capture_foreign_records() -> None:
    """From now on forward warnings and errors of :mod:`logging`, Python's warnings, and errors nobody can catch.

    For a daemon, once, at its start.
    """
    root = logging.getLogger()
    root.handlers = [_Handler(logging.WARNING)]
    logging.captureWarnings(True)
    sys.unraisablehook = _report_unraisable
    threading.excepthook = _report_thread


def _report_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    _log.error("unraisable_error", error=unraisable.exc_value)


def _report_thread(args: threading.ExceptHookArgs) -> None:
    _log.error("thread_failed", error=args.exc_value)
