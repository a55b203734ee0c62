"""How each vendor refuses, in its own words and statuses, class by class; as published or as seen by many."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from tests.support.sse_server import Reply, answers, streams
from tests.support.vendor_streams import recording


@dataclass(frozen=True)
class Refusal:
    """An answer that is no answer, the code it means and how long it asks to wait."""

    code: str
    status: int
    body: object
    headers: dict[str, str] = field(default_factory=dict)
    retry_after_ms: int | None = None

    def reply(self) -> Reply:
        if isinstance(self.body, bytes):
            return streams(self.body)
        return answers(self.status, json.dumps(self.body).encode(), headers=self.headers)


def _openai(message: str, **words: object) -> dict[str, object]:
    return {"error": {"message": message, "type": None, "param": None, "code": None, **words}}


def _anthropic(kind: str, message: str) -> dict[str, object]:
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def _gemini(code: int, status: str, message: str, *details: object) -> dict[str, object]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


_IN_2_S: Final = {"retry-after": "2"}

_OPENAI: Final = {
    "auth": Refusal("provider_auth", 401, _openai("Incorrect API key provided", code="invalid_api_key")),
    "rate-limit": Refusal(
        "provider_unavailable", 429, _openai("Rate limit reached", code="rate_limit_exceeded"), _IN_2_S, 2000
    ),
    "overload": Refusal("provider_unavailable", 503, _openai("The engine is overloaded", type="server_error")),
    "overflow": Refusal("context_overflow", 400, _openai("too long", code="context_length_exceeded")),
    "refusal": Refusal("content_refused", 400, _openai("flagged", code="content_policy_violation")),
}
_LOCAL: Final = {name: refusal for name, refusal in _OPENAI.items() if name != "refusal"}

REFUSALS: Final[dict[str, dict[str, Refusal]]] = {
    "openai": _OPENAI
    | {
        "quota": Refusal("provider_error", 429, _openai("You exceeded your quota", code="insufficient_quota")),
        "exact": Refusal(
            "provider_unavailable", 429, _openai("later"), {"retry-after": "2", "retry-after-ms": "1750"}, 1750
        ),
    },
    "openai-responses": _OPENAI,
    "anthropic": {
        "auth": Refusal("provider_auth", 401, _anthropic("authentication_error", "invalid x-api-key")),
        "permission": Refusal("provider_auth", 403, _anthropic("permission_error", "not allowed")),
        "rate-limit": Refusal("provider_unavailable", 429, _anthropic("rate_limit_error", "slow down"), _IN_2_S, 2000),
        "overload": Refusal("provider_unavailable", 529, _anthropic("overloaded_error", "Overloaded")),
        "overflow": Refusal(
            "context_overflow",
            400,
            _anthropic("invalid_request_error", "prompt is too long: 208310 tokens > 200000 maximum"),
        ),
        "overflow-with-answer": Refusal(
            "context_overflow",
            400,
            _anthropic(
                "invalid_request_error",
                "input length and `max_tokens` exceed context limit: 178959 + 64000 > 200000, decrease them",
            ),
        ),
        "too-large": Refusal("context_overflow", 413, _anthropic("request_too_large", "Request exceeds the maximum")),
        "refusal": Refusal(
            "content_refused",
            400,
            _anthropic("invalid_request_error", "Output blocked by content filtering policy"),
        ),
        "billing": Refusal("provider_error", 402, _anthropic("billing_error", "no credit")),
        "plain": Refusal("provider_error", 400, _anthropic("invalid_request_error", "max_tokens: required")),
    },
    "gemini": {
        "auth": Refusal(
            "provider_auth",
            400,
            _gemini(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID", "domain": "g"}),
        ),
        "permission": Refusal("provider_auth", 403, _gemini(403, "PERMISSION_DENIED", "no")),
        "rate-limit": Refusal(
            "provider_unavailable",
            429,
            _gemini(
                429,
                "RESOURCE_EXHAUSTED",
                "You exceeded your current quota",
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2.5s"},
            ),
            retry_after_ms=2500,
        ),
        "quota": Refusal(
            "provider_error",
            429,
            _gemini(
                429,
                "RESOURCE_EXHAUSTED",
                "You exceeded your current quota, please check your plan and billing details.",
                {
                    "@type": "type.googleapis.com/google.rpc.QuotaFailure",
                    "violations": [
                        {"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier", "quotaValue": "20"}
                    ],
                },
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "27s"},
            ),
        ),
        "overload": Refusal("provider_unavailable", 503, _gemini(503, "UNAVAILABLE", "The model is overloaded.")),
        "overflow": Refusal(
            "context_overflow",
            400,
            _gemini(
                400,
                "INVALID_ARGUMENT",
                "The input token count (1200293) exceeds the maximum number of tokens allowed (1048576).",
            ),
        ),
        "refusal": Refusal("content_refused", 200, recording("gemini", "blocked")),
        "in-a-list": Refusal("provider_unavailable", 503, [_gemini(503, "UNAVAILABLE", "The model is overloaded.")]),
        "plain": Refusal("provider_error", 400, _gemini(400, "INVALID_ARGUMENT", "contents is not specified")),
    },
    "kimi": {
        "auth": Refusal(
            "provider_auth",
            401,
            {"error": {"message": "Invalid Authentication", "type": "invalid_authentication_error"}},
        ),
        "rate-limit": Refusal(
            "provider_unavailable",
            429,
            {"error": {"message": "max RPM: 3", "type": "rate_limit_reached_error"}},
            _IN_2_S,
            2000,
        ),
        "overload": Refusal(
            "provider_unavailable", 429, {"error": {"message": "overloaded", "type": "engine_overloaded_error"}}
        ),
        "overflow": Refusal(
            "context_overflow",
            400,
            {
                "error": {
                    "message": "Invalid request: Your request exceeded model token limit: 262144",
                    "type": "invalid_request_error",
                }
            },
        ),
        "refusal": Refusal(
            "content_refused", 400, {"error": {"message": "considered high risk", "type": "content_filter"}}
        ),
        "quota": Refusal(
            "provider_error", 429, {"error": {"message": "no balance", "type": "exceeded_current_quota_error"}}
        ),
    },
    "deepseek": {
        "auth": Refusal(
            "provider_auth",
            401,
            _openai("Authentication Fails", type="authentication_error", code="invalid_request_error"),
        ),
        "rate-limit": Refusal("provider_unavailable", 429, _openai("slow down"), _IN_2_S, 2000),
        "overload": Refusal("provider_unavailable", 503, _openai("busy", type="service_unavailable_error")),
        "overflow": Refusal(
            "context_overflow",
            400,
            _openai(
                "This model's maximum context length is 131072 tokens. However, you requested 131102 tokens.",
                type="invalid_request_error",
            ),
        ),
        "refusal": Refusal("content_refused", 400, _openai("Content Exists Risk", type="invalid_request_error")),
        "balance": Refusal("provider_error", 402, _openai("Insufficient Balance", type="unknown_error")),
    },
    "openrouter": {
        "auth": Refusal("provider_auth", 401, {"error": {"message": "No auth credentials found", "code": 401}}),
        "rate-limit": Refusal(
            "provider_unavailable", 429, {"error": {"message": "Rate limited", "code": 429}}, _IN_2_S, 2000
        ),
        "overload": Refusal("provider_unavailable", 502, {"error": {"message": "Provider error", "code": 502}}),
        "overflow": Refusal(
            "context_overflow",
            400,
            {
                "error": {
                    "message": "This endpoint's maximum context length is 200000 tokens. However, you requested more.",
                    "code": 400,
                }
            },
        ),
        "refusal": Refusal(
            "content_refused",
            403,
            {
                "error": {
                    "message": "Flagged",
                    "code": 403,
                    "metadata": {"reasons": ["violence"], "flagged_input": "secret"},
                }
            },
        ),
        "credits": Refusal("provider_error", 402, {"error": {"message": "Insufficient credits", "code": 402}}),
    },
    "ollama": _LOCAL
    | {
        "overflow": Refusal(
            "context_overflow", 400, _openai("the input length exceeds the context length", type="api_error")
        ),
        "no-model": Refusal("provider_error", 404, _openai("model 'x' not found", type="not_found_error")),
    },
    "vllm": _LOCAL
    | {
        "overflow": Refusal(
            "context_overflow",
            400,
            {
                "object": "error",
                "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            },
        ),
    },
    "llamacpp": _LOCAL
    | {
        "overload": Refusal(
            "provider_unavailable",
            503,
            {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}},
        ),
        "overflow": Refusal(
            "context_overflow",
            400,
            {
                "error": {
                    "code": 400,
                    "message": "the request exceeds the available context size",
                    "type": "exceed_context_size_error",
                    "n_ctx": 4096,
                }
            },
        ),
    },
    "lmstudio": _LOCAL
    | {
        "overflow": Refusal(
            "context_overflow",
            400,
            {"error": "The model is loaded with context length of only 4096 tokens, which is not enough."},
        ),
    },
}
"""By vendor and class.  Servers on one's own machine refuse no content."""
