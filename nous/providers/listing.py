"""What models a vendor says it has: the request that asks, and what the answer means.  Pure.

One page is asked for, as long as it may be: enough for every vendor there is.
Sources: the vendors' API references, "List models".
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Struct

from nous.errors import NousError
from nous.providers.adapter import HttpRequest
from nous.providers.endpoint import ApiEndpoint
from nous.providers.faults import ErrorReply, fault_of_reply, malformed, parse_object
from nous.providers.presets import Dialect

_PATHS: Final[dict[Dialect, str]] = {
    "chat": "/models",
    "responses": "/models",
    "anthropic": "/models?limit=1000",
    "gemini": "/models?pageSize=1000",
}

_CONTEXT_FIELDS: Final = (
    "context_length",
    "max_model_len",
    "max_input_tokens",
    "max_context_length",
    "inputTokenLimit",
)
_OUTPUT_FIELDS: Final = ("max_tokens", "max_completion_tokens", "outputTokenLimit")
_MODEL_ID_CHARS: Final = 256


class ListedModel(Struct, frozen=True):
    """A model as its vendor lists it; sizes where the vendor says them."""

    id: str
    context_tokens: int | None = None
    max_output_tokens: int | None = None


def list_request(dialect: Dialect, endpoint: ApiEndpoint) -> HttpRequest:
    """Return the request for a vendor's models."""
    headers = {name: value for name, value in endpoint.headers.items() if name != "content-type"}
    return HttpRequest(endpoint.base + _PATHS[dialect], headers | {"accept": "application/json"}, method="GET")


def list_fault(reply: ErrorReply) -> NousError:
    """Return what an answer means that is no list."""
    error = parse_object(reply.body).get("error")
    words = [error.get(key) for key in ("code", "type", "status")] if isinstance(error, dict) else []
    return fault_of_reply(reply, [word for word in words if isinstance(word, str)])


def read_list(dialect: Dialect, body: bytes) -> list[ListedModel]:
    """Return the models of a list, in order of their names.

    Raises:
        NousError: ``provider_error`` if it is none.
    """
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise malformed("the list of models is not JSON") from None
    rows = found.get("models" if dialect == "gemini" else "data") if isinstance(found, dict) else None
    if not isinstance(rows, list):
        raise malformed("the answer is not a list of models")
    listed = [_read_row(dialect, row) for row in rows if isinstance(row, dict) and _can_chat(row)]
    return sorted((model for model in listed if model is not None), key=lambda model: model.id)


def _read_row(dialect: Dialect, row: dict[str, Any]) -> ListedModel | None:
    name = row.get("name" if dialect == "gemini" else "id")
    if not isinstance(name, str) or not 0 < len(name) <= _MODEL_ID_CHARS or not name.isprintable():
        return None
    return ListedModel(name.removeprefix("models/"), _size(row, _CONTEXT_FIELDS), _size(row, _OUTPUT_FIELDS))


def _can_chat(row: dict[str, Any]) -> bool:
    """Return whether a model can be asked at all; only one vendor says so."""
    methods = row.get("supportedGenerationMethods")
    return not isinstance(methods, list) or "generateContent" in methods


def _size(row: dict[str, Any], fields: tuple[str, ...]) -> int | None:
    for field in fields:
        value = row.get(field)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None
