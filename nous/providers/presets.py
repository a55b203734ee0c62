"""Every vendor and every local server nous knows by name, as data: where it is, what it speaks, how it differs.

A server that speaks one of the dialects is a new row here (and a name in :mod:`nous.config.settings`), not code.
Sources: the vendors' API references, as of November 2026; what is said to be needed was seen to be refused without.
"""

from typing import Final, Literal

from msgspec import Struct

from nous.config.provider import KEY_VARIABLES
from nous.config.settings import ProviderName

OutputForm = Literal["json_schema", "json_object"]
"""How a dialect is told what an answer is to look like: by the schema, or only that it is to be a JSON object."""

Dialect = Literal["chat", "responses", "anthropic", "gemini"]

ThinkingForm = Literal["none", "effort", "budget", "toggle", "toggle_effort"]
"""How a model is told how much to think: not at all, by a word, by a number of tokens, on or off, both of those."""


class Preset(Struct, frozen=True, kw_only=True):
    """One row.  Beyond name, dialect and address it says only what differs from OpenAI's chat completions.

    ``models`` names the vendor whose rows of :mod:`nous.providers.models` hold its models.  ``call_id`` is what ids of
    tool calls must look like.  ``thinking_field`` is where an assistant message takes its thinking back;
    ``thinking_filler`` stands there when there is none and the server insists.  ``effort_field`` takes the word for
    how much to think, ``limit_field`` the longest answer in tokens, ``cache_field`` a name under which requests with
    a common beginning find each other: fields a stranger might refuse, so only sent where they are known.  ``output``
    is how it is told that an answer has to fit a schema.
    """

    name: ProviderName
    dialect: Dialect
    api_base: str
    title: str
    models: str = ""
    call_id: str = r"[A-Za-z0-9_.:-]{1,64}"
    thinking: ThinkingForm = "effort"
    thinking_field: Literal["", "reasoning_content", "reasoning_details"] = ""
    thinking_filler: str = ""
    effort_field: Literal["reasoning_effort", "reasoning"] = "reasoning_effort"
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    cache_field: Literal["", "prompt_cache_key"] = ""
    fills_empty: bool = False
    output: OutputForm = "json_schema"

    @property
    def key_variable(self) -> str | None:
        """The environment variable of its key; None if it needs none."""
        return KEY_VARIABLES.get(self.name)


_ROWS: Final = (
    Preset(
        name="openai",
        dialect="chat",
        api_base="https://api.openai.com/v1",
        title="OpenAI, chat completions",
        models="openai",
        call_id=r"[A-Za-z0-9_-]{1,40}",
        limit_field="max_completion_tokens",
        cache_field="prompt_cache_key",
    ),
    Preset(
        name="openai-responses",
        dialect="responses",
        api_base="https://api.openai.com/v1",
        title="OpenAI, responses",
        models="openai",
        call_id=r"[A-Za-z0-9_-]{1,64}",
        cache_field="prompt_cache_key",
    ),
    Preset(
        name="anthropic",
        dialect="anthropic",
        api_base="https://api.anthropic.com/v1",
        title="Anthropic, messages",
        models="anthropic",
        call_id=r"[a-zA-Z0-9_-]{1,64}",
    ),
    Preset(
        name="gemini",
        dialect="gemini",
        api_base="https://generativelanguage.googleapis.com/v1beta",
        title="Google Gemini",
        models="gemini",
        call_id=r"[A-Za-z0-9_-]{1,64}",
    ),
    Preset(
        name="kimi",
        dialect="chat",
        api_base="https://api.moonshot.ai/v1",
        title="Moonshot AI, Kimi",
        models="kimi",
        # Tool calls without their thinking are refused, an empty one counts as none; so do empty messages.
        thinking_field="reasoning_content",
        thinking_filler=" ",
        limit_field="max_completion_tokens",
        cache_field="prompt_cache_key",
        fills_empty=True,
        output="json_object",
    ),
    Preset(
        name="deepseek",
        dialect="chat",
        api_base="https://api.deepseek.com",
        title="DeepSeek",
        models="deepseek",
        thinking="toggle_effort",
        # As with Kimi, and for every assistant message once one of them called a tool.
        thinking_field="reasoning_content",
        thinking_filler=" ",
        output="json_object",
    ),
    Preset(
        name="openrouter",
        dialect="chat",
        api_base="https://openrouter.ai/api/v1",
        title="OpenRouter",
        thinking_field="reasoning_details",
        effort_field="reasoning",
    ),
    Preset(name="ollama", dialect="chat", api_base="http://127.0.0.1:11434/v1", title="Ollama on this machine"),
    Preset(name="vllm", dialect="chat", api_base="http://127.0.0.1:8000/v1", title="vLLM on this machine"),
    Preset(
        name="llamacpp",
        dialect="chat",
        api_base="http://127.0.0.1:8080/v1",
        title="llama.cpp's server on this machine",
        thinking_field="reasoning_content",
    ),
    Preset(name="lmstudio", dialect="chat", api_base="http://127.0.0.1:1234/v1", title="LM Studio on this machine"),
)

PRESETS: Final[dict[str, Preset]] = {row.name: row for row in _ROWS}
