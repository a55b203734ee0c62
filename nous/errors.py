"""The closed taxonomy of failure: every code, its category, its sentence, its hint.

    NousError                    anything nous reports to a client or on a command line
     +-- fields                  code, cause, hint, retry_after_ms, image_refused, data
     +-- derived from the code   category, retryable, message, exit_code

Source of the rules: docs/errors.md and protocol v1, section 7.  A code belongs to exactly
one category; ``retryable`` follows from the category alone; ``message`` is a fixed sentence per code (of
``provider_auth`` another one where a key is not set), and only ``cause`` carries bounded detail.  On the wire,
``message`` is the sentence followed by the cause.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, get_args

Category = Literal[
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
]

CATEGORIES: Final[tuple[Category, ...]] = get_args(Category)

RETRYABLE: Final = frozenset({"network_transient", "state_contention"})

MAX_CAUSE_BYTES: Final = 2048
"""An error's cause is detail for a person, never a place to put whole inputs."""

EXIT_OK: Final = 0
EXIT_RUNTIME: Final = 1
EXIT_VERIFICATION: Final = 2
EXIT_POLICY: Final = 3
EXIT_APPROVAL: Final = 4
EXIT_REGRESSION: Final = 5
EXIT_USAGE: Final = 6
EXIT_DEPENDENCY: Final = 7
EXIT_UNSAFE: Final = 8

_EXIT_BY_CATEGORY: Final[dict[Category, int]] = {
    "invalid_input": EXIT_USAGE,
    "verification_failed": EXIT_VERIFICATION,
    "policy_blocked": EXIT_POLICY,
    "approval_required": EXIT_APPROVAL,
    "dependency_missing": EXIT_DEPENDENCY,
    "io_failure": EXIT_RUNTIME,
    "state_contention": EXIT_RUNTIME,
    "network_transient": EXIT_RUNTIME,
    "network_permanent": EXIT_RUNTIME,
    "internal_failure": EXIT_RUNTIME,
}


class CodeInfo(NamedTuple):
    """What is fixed about one error code.

    ``hint`` speaks to a client of the protocol; ``shell_hint``, where it differs, to somebody who typed a command.
    """

    category: Category
    message: str
    hint: str | None = None
    exit_code: int | None = None
    shell_hint: str | None = None


WIRE_CODES: Final[dict[str, CodeInfo]] = {
    "invalid_command": CodeInfo(
        "invalid_input", "The line is not a command.", "See protocol/v1 for the shape of a command."
    ),
    "invalid_payload": CodeInfo(
        "invalid_input",
        "The command's payload is not valid.",
        "The cause names the field.",
        shell_hint="The cause names the value that was not taken.",
    ),
    "line_too_long": CodeInfo(
        "invalid_input",
        "The line is longer than max_line_bytes.",
        "Send shorter lines, or start nous serve with a larger --max-line-bytes.",
        shell_hint="Send less text or fewer images, or allow more with --max-line-bytes N.",
    ),
    "command_rejected": CodeInfo(
        "invalid_input",
        "The command does not fit the present state.",
        "Ask get_state what is running.",
        shell_hint="The cause says what stands in the way.",
    ),
    "session_not_found": CodeInfo(
        "invalid_input",
        "There is no such session.",
        "new_session makes one; list_sessions names them.",
        shell_hint="nous session list names the sessions.",
    ),
    "run_not_found": CodeInfo(
        "invalid_input",
        "There is no such run.",
        "get_state names the runs.",
        shell_hint="nous trace list names the runs.",
    ),
    "session_error": CodeInfo("internal_failure", "The session cannot be used."),
    "session_corrupt": CodeInfo(
        "verification_failed",
        "The session's file is damaged.",
        "The other sessions are not affected; the cause names the file and the line.",
    ),
    "provider_unavailable": CodeInfo(
        "network_transient", "The provider could not be reached or broke off.", "Try again later."
    ),
    "provider_error": CodeInfo("network_permanent", "The provider refused the request."),
    "provider_auth": CodeInfo(
        "network_permanent", "The provider refused the key.", "Check the key's environment variable."
    ),
    "context_overflow": CodeInfo(
        "network_permanent", "The conversation does not fit the model.", "Compact the session or start a new one."
    ),
    "content_refused": CodeInfo("network_permanent", "The provider refused the content."),
    "output_invalid": CodeInfo("verification_failed", "The model's output does not fit the schema."),
    "timeout": CodeInfo(
        "internal_failure",
        "The answer took longer than --command-timeout.",
        "The run goes on: follow its events, or send prompt with wait:false.",
        shell_hint="Allow more with --command-timeout TIME.",
    ),
    "id_conflict": CodeInfo(
        "invalid_input", "This id was used for another command.", "Choose a new id for each command."
    ),
    "state_contention": CodeInfo("state_contention", "Another process holds the lock.", "Try again."),
    "io_failure": CodeInfo("io_failure", "Reading or writing failed.", "Check disk space and permissions."),
    "capability_unavailable": CodeInfo(
        "dependency_missing",
        "This daemon cannot do that.",
        "The hello answer lists what it can do.",
        shell_hint="The cause says what it cannot do.",
    ),
    "policy_blocked": CodeInfo("policy_blocked", "The policy does not allow this."),
    "approval_required": CodeInfo("approval_required", "This needs an approval."),
    "overloaded": CodeInfo("state_contention", "Too much is under way at once.", "Wait for a run to end."),
    "shutting_down": CodeInfo(
        "state_contention", "The daemon is shutting down.", "Start another one.", shell_hint="Try again."
    ),
    "internal_error": CodeInfo("internal_failure", "Something in nous failed.", "Please report it with the logs."),
}
"""The codes of protocol v1, section 7.  Closed: a new one is a change of the protocol."""

CLI_CODES: Final[dict[str, CodeInfo]] = {
    "invalid_usage": CodeInfo("invalid_input", "The command line is not valid.", "Each command has --help."),
    "invalid_config": CodeInfo(
        "invalid_input", "The configuration is not valid.", "docs/configuration.md lists all settings and variables."
    ),
    "state_dir_missing": CodeInfo(
        "invalid_input", "There is no state directory of nous.", "Type: nous init (or add --bootstrap)."
    ),
    "dependency_missing": CodeInfo(
        "dependency_missing", "Something nous needs is not installed.", "Type: nous doctor."
    ),
    "verification_failed": CodeInfo("verification_failed", "The check failed.", "The cause names what did."),
    "replay_diverged": CodeInfo(
        "verification_failed",
        "A replay diverged from its recording.",
        "nous trace diff shows where two runs differ.",
        exit_code=EXIT_REGRESSION,
    ),
    "unsafe_operation": CodeInfo("policy_blocked", "This is not safe.", exit_code=EXIT_UNSAFE),
}
"""Codes that only a command line reports."""

CODES: Final[dict[str, CodeInfo]] = {**WIRE_CODES, **CLI_CODES}


def bound_text(text: str, limit: int = MAX_CAUSE_BYTES) -> str:
    """Return ``text`` cut to at most ``limit`` bytes of UTF-8, at a character, with an ellipsis if cut.

    Lone surrogates are replaced, so that the result can always be encoded.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - 3].decode("utf-8", "ignore") + "..."


class NousError(Exception):
    """A failure with a code of the taxonomy.

    ``cause`` is detail for a person (bounded to 2 KiB); ``data`` holds fields for the payload of an error
    response (for instance ``run_id``).  ``image_refused`` says that a provider refused the request because of an image.
    Text is made in ``__str__``, never parsed.
    """

    def __init__(
        self,
        code: str,
        cause: str | None = None,
        *,
        hint: str | None = None,
        retry_after_ms: int | None = None,
        image_refused: bool = False,
        data: dict[str, object] | None = None,
    ) -> None:
        super().__init__(code, cause)
        self.info = CODES[code]
        self.code = code
        self.cause = None if cause is None else bound_text(cause)
        self.hint = self.info.hint if hint is None else hint
        self.retry_after_ms = retry_after_ms
        self.image_refused = image_refused
        self.data: dict[str, object] = data or {}

    @property
    def category(self) -> Category:
        """The category of the code."""
        return self.info.category

    @property
    def message(self) -> str:
        """The sentence of the code, which a client can show alone."""
        return self.info.message

    @property
    def retryable(self) -> bool:
        """Whether the same command may succeed later."""
        return self.info.category in RETRYABLE

    @property
    def shell_hint(self) -> str | None:
        """What to do next, for somebody who typed a command: ``hint``, unless that is the code's own for clients."""
        own = self.info.shell_hint
        return own if own is not None and self.hint == self.info.hint else self.hint

    @property
    def exit_code(self) -> int:
        """The exit code of a command that fails with this error."""
        own = self.info.exit_code
        return _EXIT_BY_CATEGORY[self.info.category] if own is None else own

    @property
    def full_message(self) -> str:
        """The code's sentence and the cause: what a client shows that shows one text."""
        return self.message if self.cause is None else f"{self.message} ({self.cause})"

    def __str__(self) -> str:
        return self.full_message


def as_nous_error(error: BaseException) -> NousError:
    """Map any exception to the taxonomy: the one place where a foreign error becomes a code."""
    if isinstance(error, NousError):
        return error
    if isinstance(error, OSError):
        return NousError("io_failure", error.strerror or type(error).__name__)
    return NousError("internal_error", type(error).__name__)
