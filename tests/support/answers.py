"""What a command of ``nous`` answers with ``--json``: one object, whose shape is checked whatever a test is about."""

from __future__ import annotations

import json
import subprocess
from typing import Any, Final

from nous.errors import CATEGORIES, CODES, RETRYABLE, NousError

Done = subprocess.CompletedProcess[bytes]

FAILURE_FIELDS: Final = {"ok", "error", "cause", "error_code", "error_category", "retryable", "hint", "correlation_id"}


def answer(done: Done) -> dict[str, Any]:
    """Return the one object that was printed; its exit code and its fields must agree."""
    assert done.stdout.count(b"\n") == 1, done
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["correlation_id"]
    assert found["ok"] == (done.returncode == 0), done
    if not found["ok"]:
        assert set(found) >= FAILURE_FIELDS
        assert found["error_code"] in CODES
        assert found["error_category"] in CATEGORIES
        assert found["error_category"] == CODES[found["error_code"]].category
        assert found["retryable"] == (found["error_category"] in RETRYABLE)
        assert done.returncode == NousError(found["error_code"]).exit_code
    return found
