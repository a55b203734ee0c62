"""The state of a run that the parts of its machine share: its spec, what has happened, and its output so far."""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, UnsetType

from nous.engine.cost import Costs
from nous.engine.effects import AppendEntry, Effect, TellHook
from nous.engine.emitter import Emitter
from nous.engine.inputs import EntryStored, Stamp
from nous.engine.queues import InputQueues
from nous.engine.spec import RunSpec, chain_digest
from nous.engine.summary import estimate_tokens
from nous.ports.extensions import HookName
from nous.protocol.entries import Compaction
from nous.protocol.events import (
    AgentStart,
    MessageEnd,
    MessageStart,
    TurnEnd,
    TurnStart,
    WarningCode,
    WarningEvent,
    encode_json,
)
from nous.protocol.messages import Message, Role, StopReason, Usage

MAX_LISTED_IDS: Final = 100
"""How many message ids a warning lists."""


class RunState:
    """The state of one run, but for where it stands in the table of transitions.  Only its machine's parts change it.

    Each field has one writer, named by its section; the machine itself owns the first.
    """

    def __init__(self, spec: RunSpec) -> None:
        self.spec = spec
        self.stamp = Stamp("", 0)
        self.emitter = Emitter(spec.run_id, spec.limits.max_event_bytes)
        self.effects: list[Effect] = []
        self.aborting = False
        self.stop_reason: StopReason = "stop"
        self.queues = InputQueues(spec.steering_mode, spec.follow_up_mode)
        self.active_tools = spec.active_tools
        self.turn: TurnStart | None = None
        self.turn_id = ""
        self.started_ns = 0
        # The session's path, as messages and compactions join it.
        self.leaf_id = spec.leaf_id
        self.context_digest = spec.context_digest
        self.context_tokens = spec.context_tokens
        self.storing: Message | None = None
        self._messages_made = 0
        # The model calls, those of compactions among them.
        self.calls_made = 0
        self.calls_in_turn = 0
        self.usage = Usage()
        self.last_usage = Usage()
        self.last_text = ""
        self.costs = Costs(spec.prices)
        self.images_left_out: tuple[str, ...] = ()
        # Compactions.
        self.is_compaction = False
        self.compaction: Compaction | None = None

    @property
    def is_structured(self) -> bool:
        """Whether the answer must fit a schema."""
        return self.spec.output_schema is not None

    @property
    def forbids_tools(self) -> bool:
        """Whether the run makes exactly one model call."""
        return self.is_structured and not self.spec.output_tools

    # -- messages and the session's path

    def make_message(self, message_id: str, role: Role, text: str, **fields: Any) -> Message:
        """Return a message that continues the path."""
        return Message(
            id=message_id,
            parent_id=self.leaf_id,
            role=role,
            text=text,
            run_id=self.spec.run_id,
            created_at=self.stamp.ts,
            **fields,
        )

    def next_message_id(self) -> str:
        """Draw the next id: the run's and a number, unique because run ids are, and the same in every replay."""
        self._messages_made += 1
        return f"{self.spec.run_id}-m{self._messages_made}"

    def store(self, message: Message) -> None:
        """Have a message stored.  The caller awaits :class:`EntryStored`."""
        self.storing = message
        self.effects.append(AppendEntry(message))

    def stored(self, item: EntryStored) -> Message | None:
        """Return the message that was being stored, now part of the path; None if the news is of another one."""
        message = self.storing
        if message is None or message.id != item.entry_id:
            return None
        self.storing = None
        self.leaf_id = message.id
        self.context_tokens += estimate_tokens(message)
        self.context_digest = chain_digest(self.context_digest, message)
        return message

    def next_call(self) -> int:
        """Draw the next model call's number."""
        self.calls_made += 1
        return self.calls_made

    # -- events and effects

    def announce(self) -> None:
        """Say that the run begins."""
        self.started_ns = self.stamp.mono_ns
        spec = self.spec
        self.emitter.emit(
            AgentStart(
                run_id=spec.run_id,
                session_id=spec.session_id,
                leaf_id=spec.leaf_id,
                provider=spec.provider,
                model=spec.model,
            )
        )

    def end_turn(self) -> None:
        """End the turn, if one is open."""
        turn, self.turn = self.turn, None
        if turn is None:
            return
        self.emitter.emit(
            TurnEnd(
                run_id=turn.run_id,
                turn_id=turn.turn_id,
                turn_kind=turn.turn_kind,
                command_id=turn.command_id,
                command_ids=turn.command_ids,
            )
        )
        self.tell("turn_end", turn_id=turn.turn_id, turn_kind=turn.turn_kind)

    def tell(self, hook: HookName, **payload: Any) -> None:
        """Tell the extensions that listen to a hook what has happened."""
        if hook in self.spec.hooks:
            self.effects.append(TellHook(hook, payload))

    def warn(self, code: WarningCode, message: str, **fields: Any) -> None:
        """Emit a warning of the turn that is open."""
        """Emit a warning that belongs to the run."""
        self.emitter.emit(
            WarningEvent(code=code, message=message, run_id=self.spec.run_id, turn_id=self.turn_id, **fields)
        )

    def emit_message_start(self, message_id: str, role: Role) -> None:
        """Emit the start of a message."""
        self.emitter.emit(MessageStart(run_id=self.spec.run_id, turn_id=self.turn_id, message_id=message_id, role=role))

    def emit_message_end(self, message_id: str, role: Role, text: str, **fields: Any) -> None:
        """Emit the end of a message; a text that does not fit an event is replaced by its size."""
        content: dict[str, Any] = {"text": text}
        if not self.fits_inline(text):
            content = {"text_bytes": len(text.encode()), "text_omitted": True}
        self.emitter.emit(
            MessageEnd(
                run_id=self.spec.run_id, turn_id=self.turn_id, message_id=message_id, role=role, **content, **fields
            )
        )

    def open_turn_id(self) -> str | UnsetType:
        """Return the id of the open turn, ``UNSET`` outside of turns."""
        return UNSET if self.turn is None else self.turn_id

    def ms_since(self, mono_ns: int) -> int:
        """Return the whole milliseconds from a reading of the monotonic clock to the current input."""
        return (self.stamp.mono_ns - mono_ns) // 1_000_000

    def fits_inline(self, value: object) -> bool:
        """Whether a value may stand in an event: measured as JSON, where a character may take six bytes."""
        return len(encode_json(value)) <= self.spec.limits.inline_text_bytes
