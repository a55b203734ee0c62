"""The schemas against the protocol's page: the frozen tables, and the closed list of codes."""

from __future__ import annotations

import pytest

from nous.errors import CATEGORIES, WIRE_CODES, NousError
from nous.protocol.commands import FIELDS, FROZEN_COMMANDS
from nous.protocol.schema import Schema, documents

COMMAND_SCHEMA, RESPONSE_SCHEMA, EVENT_SCHEMA = documents().values()

REQUIRED_OF_COMMANDS: dict[str, set[str]] = {
    "ping": set(),
    "prompt": {"text"},
    "steer": {"text"},
    "follow_up": {"text"},
    "abort": set(),
    "set_active_tools": {"tools"},
    "set_steering_mode": {"mode"},
    "set_follow_up_mode": {"mode"},
    "get_state": set(),
    "get_messages": set(),
    "set_leaf": {"leaf_id"},
    "get_tree": set(),
    "compact_session": set(),
    "new_session": set(),
    "switch_session": {"session_id"},
    "branch_session": set(),
    "extension_command": {"name"},
}
OPTIONAL_OF_COMMANDS: dict[str, set[str]] = {
    "prompt": {"wait", "leaf_id", "session_id", "output_schema", "images", "provider", "model", "thinking"},
    "steer": {"run_id", "images"},
    "follow_up": {"run_id", "images"},
    "abort": {"run_id"},
    "get_state": {"session_id"},
    "get_messages": {"session_id", "leaf_id", "cursor", "view"},
    "set_leaf": {"session_id"},
    "get_tree": {"session_id", "cursor"},
    "compact_session": {"session_id", "instruction"},
    "branch_session": {"session_id", "parent_id", "leaf_id"},
    "extension_command": {"payload"},
}
REQUIRED_OF_RESPONSES: dict[str, set[str]] = {
    "pong": {"message"},
    "accepted": {"command"},
    "result": {"output", "events", "session_id"},
    "state": {"run_state", "run_id", "session_id", "steering_mode", "follow_up_mode", "pending_counts"},
    "messages": {"session_id", "messages"},
    "leaf": {"session_id", "leaf_id"},
    "tree": {"session_id", "nodes"},
    "compaction": {"session_id", "summary", "first_kept_entry_id", "tokens_before", "trigger"},
    "session": {"session_id", "active"},
    "error": set(),
}
REQUIRED_OF_EVENTS: dict[str, set[str]] = {
    "agent_start": {"run_id"},
    "agent_end": {"run_id"},
    "turn_start": {"run_id", "turn_id"},
    "turn_end": {"run_id", "turn_id"},
    "message_start": {"run_id", "turn_id", "message_id", "role"},
    "message_update": {"run_id", "turn_id", "message_id", "delta"},
    "message_end": {"run_id", "turn_id", "message_id"},
    "tool_execution_start": {"run_id", "turn_id", "tool_call_id", "tool_name"},
    "tool_execution_update": {"run_id", "turn_id", "tool_call_id", "tool_name", "delta"},
    "tool_execution_end": {"run_id", "turn_id", "tool_call_id", "tool_name", "result"},
    "status": {"message"},
    "warning": {"code", "message"},
    "error": {"run_id", "code", "message"},
}


@pytest.mark.parametrize(
    ("document", "table"),
    [
        (COMMAND_SCHEMA, REQUIRED_OF_COMMANDS),
        (RESPONSE_SCHEMA, REQUIRED_OF_RESPONSES),
        (EVENT_SCHEMA, REQUIRED_OF_EVENTS),
    ],
    ids=["commands", "responses", "events"],
)
def test_what_is_required_is_what_v1_always_had(document: Schema, table: dict[str, set[str]]) -> None:
    payloads = {kind: document["$defs"][kind]["properties"]["payload"] for kind in table}
    assert {kind: set(payload.get("required", ())) for kind, payload in payloads.items()} == table


def test_no_frozen_command_was_lost_or_has_lost_a_field() -> None:
    assert tuple(REQUIRED_OF_COMMANDS) == FROZEN_COMMANDS
    for kind, required in REQUIRED_OF_COMMANDS.items():
        assert FIELDS[kind] == required | OPTIONAL_OF_COMMANDS.get(kind, set())


def test_the_error_codes_are_the_taxonomy() -> None:
    for document in (RESPONSE_SCHEMA, EVENT_SCHEMA):
        codes = document["$defs"]["ErrorCode"]
        assert codes["enum"] == list(WIRE_CODES)
        assert codes["x-category"] == {code: NousError(code).category for code in WIRE_CODES}
        assert codes["x-retryable"] == {code: NousError(code).retryable for code in WIRE_CODES}
        assert document["$defs"]["ErrorCategory"]["enum"] == list(CATEGORIES)
