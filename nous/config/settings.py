"""Every setting of nous: its type, its default, its bounds, what it is for, and where else it can be given.

A setting is documented here and nowhere else: the YAML layers, the environment's closed list, the flags' names in
error messages and the reference page are all derived from these structs (:mod:`nous.config.keys`).  A new setting is
one more field.  Units stand in names; a name ending in ``_env`` holds the name of an environment variable.
"""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from nous.protocol.entries import ThinkingLevel

MAX_TIMEOUT_MS: Final = 7 * 24 * 3600 * 1000
"""No wait is longer than a week: far below what a 32-bit number of milliseconds in a system call can take."""

MAX_SIZE_BYTES: Final = 1 << 30
"""No buffer of the daemon may be configured past a gibibyte."""

MAX_INPUT_LINE_BYTES: Final = 63 << 20
"""A line of a trace holds the text of a command and what is written around it, and may be 64 MiB long."""

_LOCK_PROFILES_MS: Final = {"standard": (2_000, 50), "swarm": (10_000, 20)}

ProviderName = Literal[
    "mock",
    "openai",
    "openai-responses",
    "anthropic",
    "gemini",
    "kimi",
    "deepseek",
    "openrouter",
    "ollama",
    "vllm",
    "llamacpp",
    "lmstudio",
    "replay",
]
LogLevel = Literal["debug", "info", "warning", "error"]
Profile = Literal["standard", "production"]
Decision = Literal["allow", "deny"]
OnFailure = Literal["warn", "block"]


def about(
    text: str,
    *,
    env: str | None = None,
    flag: str | None = None,
    path: bool = False,
    owner_only: bool = False,
    hidden: bool = False,
) -> Meta:
    """Document a setting.

    ``env`` and ``flag`` also set it.  ``path``: a file; a relative one starts where the setting was written.
    ``owner_only``: never taken from a project's file, because that comes with somebody else's repository; so are all
    names ending in ``_env``.  ``hidden``: its value is never shown, because people put into it what nobody should see.
    """
    notes = {"env": env, "flag": flag, "path": path, "owner_only": owner_only, "hidden": hidden}
    return Meta(description=text, extra=notes)


Text = Annotated[str, Meta(min_length=1, max_length=64 * 1024)]
VariableName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Z_][A-Z0-9_]{0,127}$",
        extra={"expected": "the name of an environment variable (A to Z, 0 to 9, _), not its value"},
    ),
]
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
TimeoutMs = Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_MS)]
PauseMs = Annotated[int, Meta(ge=0, le=MAX_TIMEOUT_MS)]
SizeBytes = Annotated[int, Meta(ge=64, le=MAX_SIZE_BYTES)]
MemoryMb = Annotated[int, Meta(ge=16, le=1 << 20)]
Seconds = Annotated[int, Meta(ge=1, le=MAX_TIMEOUT_MS // 1000)]
Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]


class _Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mapping of the configuration."""


class ProviderSection(_Section, frozen=True, kw_only=True):
    """Which model answers, and how it is reached."""

    name: Annotated[
        ProviderName | None,
        about(
            "Who answers. There is no default: nobody gets fake answers by accident.",
            env="NOUS_PROVIDER",
            flag="--provider",
        ),
    ] = None
    model: Annotated[
        Text | None,
        about(
            "The model's name, as its provider knows it. Needed by every provider but mock.",
            env="NOUS_MODEL",
            flag="--model",
        ),
    ] = None
    api_base: Annotated[
        Text | None,
        about(
            "Base URL of the provider's API, if it is not the vendor's own.",
            env="NOUS_API_BASE",
            flag="--api-base",
            owner_only=True,
        ),
    ] = None
    api_key_env: Annotated[
        VariableName | None,
        about("Name of the environment variable that holds the key; by default the one the vendor documents."),
    ] = None
    script: Annotated[
        Text | None,
        about("YAML or NDJSON file with the answers of the mock provider.", flag="--script", path=True),
    ] = None
    replay_from: Annotated[
        Text | None,
        about("A recorded run, or a directory of them, for the provider replay.", flag="--replay-from", path=True),
    ] = None
    replay_speed: Annotated[
        Literal["full", "recorded"], about("How fast the provider replay goes.", flag="--replay-speed")
    ] = "full"
    replay_drive: Annotated[
        Literal["recording", "client"],
        about("Who brings the recorded client commands in a replay.", flag="--replay-drive"),
    ] = "recording"
    thinking: Annotated[
        ThinkingLevel | None,
        about("How much the model thinks before it answers, as near as it can; by default as its vendor has it."),
    ] = None
    max_output_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=10_000_000)] | None,
        about("The longest answer in tokens, thinking included; by default the most that the model is known to give."),
    ] = None
    models_file: Annotated[
        Text | None,
        about("YAML file with what nous should know about models: sizes, prices, images.", path=True),
    ] = None
    headers: Annotated[
        dict[str, Text],
        about(
            "Further headers of every request. Keys do not belong here: see api_key_env.", owner_only=True, hidden=True
        ),
    ] = {}
    connect_timeout_ms: Annotated[TimeoutMs, about("How long connecting may take.")] = 10_000
    stream_idle_timeout_ms: Annotated[TimeoutMs, about("How long a streaming answer may stay silent.")] = 120_000
    stream_stall_timeout_ms: Annotated[
        TimeoutMs, about("How long a streaming answer may bring bytes, such as keep-alives, but nothing of the answer.")
    ] = 600_000
    allow_insecure: Annotated[
        bool, about("Whether plain http may leave this machine; to loopback it always may.", owner_only=True)
    ] = False


class EndpointSettings(_Section, frozen=True, kw_only=True):
    """How one provider is reached, whichever is the daemon's own; ``provider`` wins for the one it names."""

    api_base: Annotated[Text | None, about("Base URL of its API, if it is not the vendor's own.", owner_only=True)] = (
        None
    )
    api_key_env: Annotated[
        VariableName | None,
        about("Name of the environment variable that holds its key; by default the one the vendor documents."),
    ] = None
    headers: Annotated[
        dict[str, Text],
        about("Further headers of every request to it. Keys do not belong here.", owner_only=True, hidden=True),
    ] = {}
    allow_insecure: Annotated[
        bool, about("Whether plain http to it may leave this machine; to loopback it always may.", owner_only=True)
    ] = False


class ProvidersSettings(_Section, frozen=True, kw_only=True):
    """Providers that runs may choose besides the daemon's own."""

    openai: EndpointSettings = EndpointSettings()
    openai_responses: EndpointSettings = EndpointSettings()
    anthropic: EndpointSettings = EndpointSettings()
    gemini: EndpointSettings = EndpointSettings()
    kimi: EndpointSettings = EndpointSettings()
    deepseek: EndpointSettings = EndpointSettings()
    openrouter: EndpointSettings = EndpointSettings()
    ollama: EndpointSettings = EndpointSettings()
    vllm: EndpointSettings = EndpointSettings()
    llamacpp: EndpointSettings = EndpointSettings()
    lmstudio: EndpointSettings = EndpointSettings()


class DaemonSettings(_Section, frozen=True, kw_only=True):
    """Life cycle and limits of ``nous serve``."""

    profile: Annotated[
        Profile,
        about(
            "Production refuses to start with answers that are not a model's, or with the permission to make a state "
            "directory; see nous doctor --production-readiness.",
            owner_only=True,
        ),
    ] = "standard"
    on_eof: Annotated[
        Literal["finish", "abort"], about("What the end of stdin means for runs that go on.", flag="--on-eof")
    ] = "finish"
    drain_timeout_ms: Annotated[
        PauseMs, about("How long runs may still go on after the end of stdin.", flag="--drain-timeout")
    ] = 30_000
    command_timeout_ms: Annotated[
        TimeoutMs, about("After how long a waiting prompt is answered with timeout.", flag="--command-timeout")
    ] = 30_000
    max_line_bytes: Annotated[
        Annotated[int, Meta(ge=64, le=MAX_INPUT_LINE_BYTES)],
        about("Longest line taken from a client.", flag="--max-line-bytes"),
    ] = 8 << 20
    max_event_bytes: Annotated[
        Annotated[int, Meta(ge=64 * 1024, le=MAX_SIZE_BYTES)], about("Longest line sent to a client.")
    ] = 1 << 20
    max_message_bytes: Annotated[SizeBytes, about("Longest message of a model; past it the run fails.")] = 32 << 20
    max_runs: Annotated[Count, about("How many runs may go on side by side.")] = 64
    abort_grace_ms: Annotated[TimeoutMs, about("How long an aborted run may take to end.")] = 2_000
    subscriber_buffer_bytes: Annotated[
        SizeBytes, about("How far a subscriber of the event socket may fall behind before it is disconnected.")
    ] = 8 << 20
    faults: Annotated[
        Text | None,
        about(
            "A plan of faults that are injected on purpose, for tests (docs/faults.md). Never in production.",
            flag="--faults",
            path=True,
            owner_only=True,
        ),
    ] = None
    log_level: Annotated[
        LogLevel, about("The least important records on stderr.", env="NOUS_LOG_LEVEL", flag="--log-level")
    ] = "info"


class EngineSettings(_Section, frozen=True, kw_only=True):
    """Limits of a run."""

    max_model_calls: Annotated[Count, about("How many times the model may be called within one turn.")] = 64
    compact_at_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=100_000_000)],
        about("A turn that leaves a context of this size is followed by a compaction; 0 never by size."),
    ] = 150_000
    structured_output_tools: Annotated[
        bool, about("Whether tools may be used in a run whose answer has to fit a schema.")
    ] = False
    compact_keep_tokens: Annotated[
        Annotated[int, Meta(ge=0, le=100_000_000)], about("How much of the end a compaction keeps as it is.")
    ] = 20_000


class RetrySettings(_Section, frozen=True, kw_only=True):
    """Model calls that fail in passing (429, 5xx, a lost connection) are made again, if nothing was shown yet."""

    max_retries: Annotated[
        Annotated[int, Meta(ge=0, le=100)], about("How many times a model call is made again; 0 never.")
    ] = 3
    first_delay_ms: Annotated[
        TimeoutMs, about("The pause before the first retry; each further one is twice as long.")
    ] = 500
    max_delay_ms: Annotated[TimeoutMs, about("Where the doubling ends.")] = 8_000
    total_ms: Annotated[
        TimeoutMs, about("How long all pauses may be together; a provider that asks for more is not asked again.")
    ] = 15_000


class ToolsSettings(_Section, frozen=True, kw_only=True):
    """What tools may do."""

    active: Annotated[
        tuple[Text, ...] | None, about("The tools the model is offered at start; null means all.", flag="--tools")
    ] = None
    allow_outside_workdir: Annotated[
        bool, about("Whether tools may touch files outside the workdir.", owner_only=True)
    ] = False
    bash_timeout_ms: Annotated[TimeoutMs, about("How long a shell command may run if the model names no time.")] = (
        120_000
    )
    memory_limit_mb: Annotated[MemoryMb, about("Resident memory of a tool's process tree, in MiB.")] = 4096
    policy: Annotated[dict[str, Decision], about("Tool by tool, whether calls are allowed. Not named: allow.")] = {}


class ExtensionsSettings(_Section, frozen=True, kw_only=True):
    """Which extensions run, and extension by extension what takes the place of their manifests' limits."""

    enabled: Annotated[bool, about("Whether extensions are looked for at all.", owner_only=True)] = True
    skip: Annotated[tuple[Text, ...], about("Names of extensions that are not started.", owner_only=True)] = ()
    hook_timeout_ms: Annotated[dict[str, TimeoutMs], about("How long a hook may take.", owner_only=True)] = {}
    tool_timeout_ms: Annotated[
        dict[str, TimeoutMs], about("How long a tool or command may take.", owner_only=True)
    ] = {}
    start_timeout_ms: Annotated[dict[str, TimeoutMs], about("How long a start may take.", owner_only=True)] = {}
    max_output_bytes: Annotated[
        dict[str, SizeBytes], about("What one call may answer, and the longest line.", owner_only=True)
    ] = {}
    memory_mb: Annotated[
        dict[str, MemoryMb], about("Resident memory of the process tree, in MiB.", owner_only=True)
    ] = {}
    max_processes: Annotated[dict[str, Count], about("Processes of the tree.", owner_only=True)] = {}
    cpu_seconds: Annotated[
        dict[str, Seconds], about("CPU time of the tree while one call is under way.", owner_only=True)
    ] = {}
    max_concurrency: Annotated[dict[str, Count], about("Calls side by side.", owner_only=True)] = {}
    cooldown_ms: Annotated[
        dict[str, TimeoutMs], about("How long it is left alone after three failures in a row.", owner_only=True)
    ] = {}
    on_failure: Annotated[
        dict[str, OnFailure], about("What the failure of any of its hooks means.", owner_only=True)
    ] = {}
    priority: Annotated[dict[str, Priority], about("Its place among the others, lowest first.", owner_only=True)] = {}


class PromptSettings(_Section, frozen=True, kw_only=True):
    """The system prompt."""

    system: Annotated[Text | None, about("Stands in place of the built-in system prompt.")] = None
    system_file: Annotated[Text | None, about("The same from a file.", path=True)] = None
    agents_md: Annotated[bool, about("Whether AGENTS.md, of the workdir and above it, becomes part of it.")] = True


class TraceSettings(_Section, frozen=True, kw_only=True):
    """What is written about a run."""

    fsync: Annotated[
        Literal["message", "run", "off"],
        about("When a trace is synced to disk: with each message and tool result, with the run's end, or never."),
    ] = "message"


class OperationsSettings(_Section, frozen=True, kw_only=True):
    """What is kept for whoever operates nous."""

    log: Annotated[
        bool,
        about(
            "Whether each command's start and end (exit code, category of the error, time taken) is appended to "
            "operations.ndjson in the state directory.",
            owner_only=True,
        ),
    ] = False


class RetentionSettings(_Section, frozen=True, kw_only=True):
    """What ``nous gc`` removes: whole units past an age or beyond a count.  Without a setting all of a kind stay."""

    max_session_days: Annotated[
        Count | None, about("Sessions that were not changed for longer go.", owner_only=True)
    ] = None
    max_sessions: Annotated[Count | None, about("So many sessions stay, the last changed.", owner_only=True)] = None
    max_trace_days: Annotated[Count | None, about("Traces older than that go.", owner_only=True)] = None
    max_traces: Annotated[Count | None, about("So many traces stay, the newest.", owner_only=True)] = None
    max_output_days: Annotated[Count | None, about("Long outputs of tools older than that go.", owner_only=True)] = None
    max_outputs: Annotated[Count | None, about("Long outputs of so many runs stay, the newest.", owner_only=True)] = (
        None
    )


class SessionLockSettings(_Section, frozen=True, kw_only=True):
    """How long to wait for a session that another process is writing."""

    profile: Annotated[
        Literal["standard", "swarm"],
        about(
            "How patient: standard waits 2 s and tries every 50 ms; swarm, for many processes, 10 s and 20 ms.",
            env="NOUS_SESSION_LOCK_PROFILE",
        ),
    ] = "standard"
    timeout_ms: Annotated[
        PauseMs | None, about("How long to wait, if not as the profile says.", env="NOUS_SESSION_LOCK_TIMEOUT_MS")
    ] = None
    retry_ms: Annotated[
        TimeoutMs | None, about("Time between two tries, if not the profile's.", env="NOUS_SESSION_LOCK_RETRY_MS")
    ] = None
    stale_after_ms: Annotated[
        TimeoutMs, about("Age at which a lock's owner is called stuck.", env="NOUS_SESSION_LOCK_STALE_AFTER_MS")
    ] = 60_000

    def timing_ms(self) -> tuple[int, int]:
        """Return how long to wait in all, and between two tries."""
        timeout_ms, retry_ms = _LOCK_PROFILES_MS[self.profile]
        return (
            timeout_ms if self.timeout_ms is None else self.timeout_ms,
            retry_ms if self.retry_ms is None else self.retry_ms,
        )


class Settings(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    state_dir: Annotated[
        Text | None,
        about(
            "Where nous keeps its files; by default $XDG_STATE_HOME/nous or ~/.local/state/nous.",
            env="NOUS_STATE_DIR",
            flag="--state-dir",
            path=True,
            owner_only=True,
        ),
    ] = None
    provider: ProviderSection = ProviderSection()
    providers: ProvidersSettings = ProvidersSettings()
    daemon: DaemonSettings = DaemonSettings()
    engine: EngineSettings = EngineSettings()
    retry: RetrySettings = RetrySettings()
    tools: ToolsSettings = ToolsSettings()
    extensions: ExtensionsSettings = ExtensionsSettings()
    prompt: PromptSettings = PromptSettings()
    trace: TraceSettings = TraceSettings()
    retention: RetentionSettings = RetentionSettings()
    operations: OperationsSettings = OperationsSettings()
    session_lock: SessionLockSettings = SessionLockSettings()
