"""Which errors say that a provider refused an image: by the real words of vendors and servers."""

from __future__ import annotations

import json

import pytest

from nous.errors import NousError
from nous.providers.faults import ErrorReply, fault_in_stream, fault_of_answer
from nous.providers.vendor_errors import error_parts


def _openai(message: str, **words: object) -> object:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **words}}


def _anthropic(message: str) -> object:
    return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}


def _gemini(message: str) -> object:
    return {"error": {"code": 400, "message": message, "status": "INVALID_ARGUMENT"}}


def fault(status: int, body: object) -> NousError:
    return fault_of_answer(ErrorReply(status, "application/json", json.dumps(body).encode()))


REFUSED = {
    # Anthropic: anthropics/claude-code#1747, #29969, #56016
    "anthropic-unreadable": (400, _anthropic("Could not process image")),
    "anthropic-pixels": (
        400,
        _anthropic(
            "messages.2.content.0.image.source.base64.data: At least one of the image dimensions exceed max allowed "
            "size: 8000 pixels"
        ),
    ),
    "anthropic-bytes": (
        400,
        _anthropic(
            "messages.4.content.1.image.source.base64: image exceeds 5 MB maximum: 5472160 bytes > 5242880 bytes"
        ),
    ),
    "anthropic-type": (
        400,
        _anthropic(
            "messages.0.content.1.image.source.base64.data: The image was specified using the image/jpeg media type, "
            "but the image appears to be a image/png image"
        ),
    ),
    # OpenAI's API reference, ResponseError.code, and its messages
    "openai-unsupported": (
        400,
        _openai(
            "You uploaded an unsupported image. Please make sure your image has of one the following formats: "
            "['png', 'jpeg', 'gif', 'webp'].",
            code="invalid_image_format",
        ),
    ),
    "openai-code-only": (400, _openai("Invalid value.", code="image_parse_error")),
    "openai-param-only": (400, _openai("Invalid value.", param="messages[1].content[0].image_url.url")),
    "openai-blind": (400, _openai("Invalid content type. image_url is only supported by certain models.")),
    "openai-policy": (400, _openai("Not allowed.", code="image_content_policy_violation")),
    "gemini-unreadable": (400, _gemini("Unable to process input image. Please retry or report")),
    "gemini-invalid": (400, _gemini("Provided image is not valid.")),
    "gemini-list": (400, [_gemini("Provided image is not valid.")]),
    "deepseek-blind": (
        400,
        _openai("Failed to deserialize: messages[0]: unknown variant `image_url`, expected `text` at line 1 column 80"),
    ),
    "openrouter-blind": (404, {"error": {"message": "No endpoints found that support image input", "code": 404}}),
    "openrouter-wrapped": (
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps(_anthropic("Could not process image")), "provider_name": "Anthropic"},
            }
        },
    ),
    # ollama/ollama#11320 and #7388, langgenius/dify#8170
    "ollama-format": (
        500,
        {"error": "Failed to create new sequence: failed to process inputs: image: unknown format"},
    ),
    "ollama-type": (400, {"error": "invalid image type: image/webp"}),
    "ollama-base64": (400, {"error": "illegal base64 data at input byte 5"}),
    # ggml-org/llama.cpp#15377 and #12947
    "llamacpp-blind": (
        500,
        {"error": {"code": 500, "message": "image input is not supported - hint: mmproj", "type": "server_error"}},
    ),
    "llamacpp-type": (
        500,
        {"error": {"code": 500, "message": 'Unsupported content part type: "image_url"; messages = [', "type": "x"}},
    ),
    "vllm-unreadable": (500, {"object": "error", "message": "cannot identify image file <_io.BytesIO object>"}),
    "too-large": (413, _openai("The image is too large.")),
}

OTHERS = {
    "other-400": (400, _openai("Unsupported value: 'temperature'"), "provider_error"),
    "a-model-of-that-name": (404, _openai("The model gpt-image-1 does not exist", code="model"), "provider_error"),
    "a-tool-of-that-name": (400, _openai("Invalid tool: generate_image"), "provider_error"),
    "key": (401, _openai("No key for image models"), "provider_auth"),
    "rate": (429, _openai("Rate limit reached for images per minute"), "provider_unavailable"),
    "passing": (503, _openai("The image service is overloaded", type="server_error"), "provider_unavailable"),
    "overflow": (
        400,
        _anthropic("prompt is too long: 210000 tokens > 200000 maximum, images included"),
        "context_overflow",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_was_refused_is_recognised_and_never_retried_as_it_was(name: str) -> None:
    error = fault(*REFUSED[name])
    assert (error.image_refused, error.code) == (True, "provider_error")


@pytest.mark.parametrize("name", OTHERS)
def test_other_errors_concern_no_image(name: str) -> None:
    status, body, code = OTHERS[name]
    error = fault(status, body)
    assert (error.image_refused, error.code) == (False, code)


@pytest.mark.parametrize(
    ("error", "refused", "code"),
    [
        ({"code": "invalid_image", "message": "Bad."}, True, "provider_error"),
        ({"code": "server_error", "message": "Downloading the image failed"}, False, "provider_unavailable"),
        ("image: unknown format", True, "provider_error"),
        ({"code": 400, "message": "Provided image is not valid."}, True, "provider_error"),
        ({"code": "content_filter", "message": "no"}, False, "content_refused"),
    ],
)
def test_errors_inside_a_stream(error: object, refused: bool, code: str) -> None:
    found = fault_in_stream(*error_parts(error))
    assert (found.image_refused, found.code) == (refused, code)
