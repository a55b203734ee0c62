"""The tables about commands: which there are, which change nothing, which never wait."""

from __future__ import annotations

import pytest

from nous.protocol.commands import COMMANDS, FIELDS, FROZEN_COMMANDS, READ_ONLY, UNORDERED, BranchSession, Command, Ping


def test_frozen_commands_come_first() -> None:
    assert tuple(COMMANDS)[: len(FROZEN_COMMANDS)] == FROZEN_COMMANDS
    assert len(FROZEN_COMMANDS) == 17


def test_every_question_is_read_only_and_nothing_else_is() -> None:
    questions = {name for name in COMMANDS if name.startswith(("get_", "list_"))}
    assert questions | {"ping", "hello"} == READ_ONLY


def test_questions_and_what_speaks_to_a_run_never_wait() -> None:
    assert READ_ONLY | {"abort", "steer", "follow_up", "export_trace"} == UNORDERED
    assert COMMANDS.keys() >= UNORDERED


def test_a_command_is_named_by_its_payload() -> None:
    assert Command("c1", Ping()).type == "ping"
    assert all(cls.kind == name for name, cls in COMMANDS.items())


def test_the_fields_of_a_payload_are_known() -> None:
    assert FIELDS["ping"] == frozenset()
    assert FIELDS["set_leaf"] == {"leaf_id", "session_id"}
    assert FIELDS.keys() == COMMANDS.keys()


def test_a_branch_needs_a_source() -> None:
    assert BranchSession(session_id="s").source_id == "s"
    assert BranchSession(parent_id="s").source_id == "s"
    with pytest.raises(ValueError, match="session_id"):
        BranchSession(leaf_id="e")
