"""The taxonomy, pinned: every code, its category and exit code, and what an error does with its text."""

from __future__ import annotations

import errno
import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nous.errors import (
    CATEGORIES,
    CLI_CODES,
    CODES,
    MAX_CAUSE_BYTES,
    RETRYABLE,
    WIRE_CODES,
    Category,
    NousError,
    as_nous_error,
    bound_text,
)

# code: (category, exit code, retryable).  A change here is a change of the protocol, or of the command line.
WIRE: dict[str, tuple[str, int, bool]] = {
    "invalid_command": ("invalid_input", 6, False),
    "invalid_payload": ("invalid_input", 6, False),
    "line_too_long": ("invalid_input", 6, False),
    "command_rejected": ("invalid_input", 6, False),
    "session_not_found": ("invalid_input", 6, False),
    "run_not_found": ("invalid_input", 6, False),
    "session_error": ("internal_failure", 1, False),
    "session_corrupt": ("verification_failed", 2, False),
    "provider_unavailable": ("network_transient", 1, True),
    "provider_error": ("network_permanent", 1, False),
    "provider_auth": ("network_permanent", 1, False),
    "context_overflow": ("network_permanent", 1, False),
    "content_refused": ("network_permanent", 1, False),
    "output_invalid": ("verification_failed", 2, False),
    "timeout": ("internal_failure", 1, False),
    "id_conflict": ("invalid_input", 6, False),
    "state_contention": ("state_contention", 1, True),
    "io_failure": ("io_failure", 1, False),
    "capability_unavailable": ("dependency_missing", 7, False),
    "policy_blocked": ("policy_blocked", 3, False),
    "approval_required": ("approval_required", 4, False),
    "overloaded": ("state_contention", 1, True),
    "shutting_down": ("state_contention", 1, True),
    "internal_error": ("internal_failure", 1, False),
}
CLI: dict[str, tuple[str, int, bool]] = {
    "invalid_usage": ("invalid_input", 6, False),
    "invalid_config": ("invalid_input", 6, False),
    "state_dir_missing": ("invalid_input", 6, False),
    "dependency_missing": ("dependency_missing", 7, False),
    "verification_failed": ("verification_failed", 2, False),
    "replay_diverged": ("verification_failed", 5, False),
    "unsafe_operation": ("policy_blocked", 8, False),
}


def test_the_categories_are_these_ten() -> None:
    assert CATEGORIES == (
        "invalid_input",
        "verification_failed",
        "policy_blocked",
        "approval_required",
        "dependency_missing",
        "io_failure",
        "state_contention",
        "network_transient",
        "network_permanent",
        "internal_failure",
    )
    assert get_args(Category) == CATEGORIES


def test_the_codes_are_these() -> None:
    assert tuple(WIRE_CODES) == tuple(WIRE)
    assert tuple(CLI_CODES) == tuple(CLI)
    assert not WIRE_CODES.keys() & CLI_CODES.keys()


@pytest.mark.parametrize(("code", "row"), {**WIRE, **CLI}.items())
def test_the_table(code: str, row: tuple[str, int, bool]) -> None:
    error = NousError(code)
    assert (error.category, error.exit_code, error.retryable) == row


def test_every_category_has_a_code_on_the_wire() -> None:
    assert {info.category for info in WIRE_CODES.values()} == set(CATEGORIES)


@pytest.mark.parametrize("code", CODES)
def test_retryable_follows_from_the_category_alone(code: str) -> None:
    assert set(RETRYABLE) == {"network_transient", "state_contention"}
    assert NousError(code).retryable == (NousError(code).category in RETRYABLE)


def test_messages_are_sentences_and_differ() -> None:
    messages = [info.message for info in CODES.values()]
    hints = [info.hint for info in CODES.values() if info.hint is not None]
    assert len(set(messages)) == len(messages)
    assert all(text[0].isupper() and text.endswith((".", ")")) and "\n" not in text for text in messages)
    assert all(text.endswith(".") and "\n" not in text for text in hints)


# --- an error


def test_an_unknown_code_cannot_be_raised() -> None:
    with pytest.raises(KeyError):
        NousError("bad_luck")


def test_an_error_tells_its_sentence_and_its_cause() -> None:
    assert str(NousError("session_not_found")) == "There is no such session."
    assert str(NousError("session_not_found", "s1")) == "There is no such session. (s1)"


def test_a_shell_gets_hints_that_name_no_command_of_the_protocol() -> None:
    commands = re.compile(r"\b[a-z]+(_[a-z]+)+\b|wait:|hello|protocol/v1")
    # Only lines that nobody types with `nous COMMAND` bring these about.
    on_the_wire_only = {"invalid_command", "id_conflict"}
    for code in CODES.keys() - on_the_wire_only:
        hint = NousError(code).shell_hint or ""
        assert not commands.search(hint), (code, hint)
        assert "nous serve" not in hint, (code, hint)
        assert hint == "" or hint.endswith("."), (code, hint)


def test_a_hint_of_its_own_is_shown_in_a_shell_too() -> None:
    assert NousError("session_not_found").shell_hint == "nous session list names the sessions."
    assert NousError("session_not_found", hint="Look elsewhere.").shell_hint == "Look elsewhere."
    assert NousError("io_failure").shell_hint == NousError("io_failure").hint
    assert NousError("session_not_found", hint="").shell_hint == ""


def test_a_hint_is_the_code_s_unless_given() -> None:
    assert NousError("overloaded").hint == "Wait for a run to end."
    assert NousError("overloaded", hint="Raise max_runs.").hint == "Raise max_runs."
    assert NousError("session_error").hint is None


def test_an_error_without_more_has_no_cause_delay_or_data() -> None:
    error = NousError("timeout")
    assert (error.cause, error.retry_after_ms, error.data) == (None, None, {})


def test_a_cause_is_bounded() -> None:
    cause = NousError("io_failure", "x" * 10_000).cause
    assert cause == "x" * (MAX_CAUSE_BYTES - 3) + "..."


def test_a_foreign_error_becomes_a_code() -> None:
    full = as_nous_error(OSError(errno.ENOSPC, "No space left on device", "secret/path"))
    assert (full.code, full.cause) == ("io_failure", "No space left on device")
    assert (as_nous_error(OSError()).code, as_nous_error(OSError()).cause) == ("io_failure", "OSError")
    other = as_nous_error(ValueError("a value nobody should see"))
    assert (other.code, other.cause) == ("internal_error", "ValueError")
    own = NousError("timeout")
    assert as_nous_error(own) is own


# --- bounded text


@pytest.mark.parametrize(
    ("text", "limit", "bounded"),
    [
        ("", 10, ""),
        ("x" * 10, 10, "x" * 10),
        ("x" * 11, 10, "x" * 7 + "..."),
        ("éé", 4, "éé"),
        ("é" * 6, 10, "ééé..."),  # seven bytes hold three of two
        ("€" * 4, 10, "€€..."),
        ("\U0001f600" * 3, 10, "\U0001f600..."),
        ("ab\U0001f600\U0001f600", 9, "ab\U0001f600..."),
        ("abc\U0001f600\U0001f600", 9, "abc..."),
        ("\u2028" * 4, 9, "\u2028\u2028..."),
        ("\ud800", 10, "?"),
        ("a\udcffb", 10, "a?b"),
        ("\ud83d\ude00", 10, "??"),
        ("\udcff" * 11, 10, "?" * 7 + "..."),
    ],
)
def test_text_is_cut_at_a_character(text: str, limit: int, bounded: str) -> None:
    assert bound_text(text, limit) == bounded


@given(st.text(st.characters(), max_size=60), st.integers(3, 80))
def test_bounded_text_fits_and_is_the_beginning(text: str, limit: int) -> None:
    bounded = bound_text(text, limit)
    whole = text.encode("utf-8", "replace").decode()
    assert len(bounded.encode("utf-8")) <= limit
    if len(whole.encode()) <= limit:
        assert bounded == whole
    else:
        assert bounded.endswith("...")
        assert whole.startswith(bounded[:-3])
        assert len(bounded.encode()) > limit - 4
