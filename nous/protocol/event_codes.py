"""The codes of ``status`` and ``warning`` events: what each means, and what a client does about it.

docs/codes.md is generated from these tables; a daemon does not load them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from nous.protocol.events import StartWarningCode, StatusCode, WarningCode


class EventCode(NamedTuple):
    """When an event with a code is emitted, and what a client or its user does about it."""

    meaning: str
    action: str


STATUS_CODES: Final[Mapping[StatusCode, EventCode]] = {
    "compaction_start": EventCode(
        "The older part of the conversation is about to be replaced by a summary.",
        "Show that the run is compacting; a model call may follow that streams nothing.",
    ),
    "compaction_end": EventCode(
        "The conversation was compacted; the message says whether a model wrote the summary.",
        "Nothing. `get_messages` still has all messages.",
    ),
    "input_handled": EventCode(
        "An extension handled a prompt, a steer or a follow-up, so that no model is called for it.",
        "Show the message: it is the extension's answer. `command_id` or `command_ids` name the commands.",
    ),
    "extension_refused": EventCode(
        "An extension was found and may not run.",
        "Read the reason in the message. For an extension of a project: look at it, then `nous ext trust DIR`.",
    ),
    "extension_half_open": EventCode(
        "A disabled extension is tried again after its cool-down.",
        "Nothing. `extension_recovered` or a warning follows.",
    ),
    "extension_recovered": EventCode(
        "A disabled extension works again.",
        "Nothing.",
    ),
    "extension_tools_gone": EventCode(
        "An extension no longer offers some of its tools; the message names them.",
        "Ask `list_tools` again if you show tools.",
    ),
}
"""Every code of a ``status`` event."""

WARNING_CODES: Final[Mapping[WarningCode, EventCode]] = {
    "provider_retry": EventCode(
        "A model call failed transiently and is made again after `delay_ms`; this is retry `attempt` of `limit`.",
        "Show that the run waits, and the `cause`. `abort` ends the wait.",
    ),
    "provider_retry_exhausted": EventCode(
        "A model call failed transiently and is not made again. An `error` event follows.",
        "Try again later. The `retry` settings say how often and how long is tried.",
    ),
    "provider_aborted": EventCode(
        "A model call was stopped by `abort`.",
        "Nothing. `agent_end` follows, with the status `aborted`.",
    ),
    "images_left_out": EventCode(
        "The provider refused an image. The request is made again without the images of `message_ids`.",
        "Tell the user that the model does not see them. Send another format, or choose a model that takes images.",
    ),
    "tool_loop_limit_exceeded": EventCode(
        "A turn reached `limit` model calls. `agent_end` follows, with the status `max_steps`.",
        "Send another prompt to go on, or raise `engine.max_model_calls`.",
    ),
    "tool_not_found": EventCode(
        "The model called a tool that does not exist. The model is told.",
        "Nothing. If it happens often, the prompt or an extension names a tool that is gone.",
    ),
    "tool_not_active": EventCode(
        "The model called a tool that is not active. The model is told.",
        "Nothing, or activate the tool with `set_active_tools`.",
    ),
    "tool_validation_error": EventCode(
        "The arguments of a tool call are not valid. The model is told and usually tries again.",
        "Nothing.",
    ),
    "tool_execution_error": EventCode(
        "A tool failed or crashed. The model is told.",
        "Show the result of the call. `tool_execution_end` has it.",
    ),
    "tool_execution_skipped": EventCode(
        "A tool call was not run: a steer came first, or the answer was cut before its end. The model is told.",
        "Nothing.",
    ),
    "tool_blocked": EventCode(
        "An extension or a rule forbade a tool call. The model is told.",
        "Show the result of the call: it holds the reason.",
    ),
    "extension_timeout": EventCode(
        "An extension did not answer a hook, a tool call or a command in time.",
        "See `reason` and the extension's log. `hook_timeout_ms` and `tool_timeout_ms` in its manifest allow more.",
    ),
    "extension_error": EventCode(
        "An extension failed, or could not be asked.",
        "See `reason` and the extension's log. `get_state` shows its state.",
    ),
    "extension_disabled": EventCode(
        "An extension failed three times in a row and is not asked until its cool-down is over.",
        "Mend it, or leave it out with `extensions.skip`. With `on_failure: block`, what it guards is refused.",
    ),
    "torn_tail_recovered": EventCode(
        "A session's file ended within a line, which a crash had cut. The line was kept aside in a file of its own.",
        "Nothing. What had been acknowledged is still there.",
    ),
}
"""Every code of a ``warning`` event."""

START_WARNING_CODES: Final[Mapping[StartWarningCode, EventCode]] = {
    "project_config_ignored": EventCode(
        "The project has a configuration file that is not trusted, or has changed since it was. It is ignored.",
        "Show the `hint`: read the file, then type `nous trust DIR`.",
    ),
}
"""Every code in the ``warnings`` of ``ready``."""
