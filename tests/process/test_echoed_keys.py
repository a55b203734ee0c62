"""A provider that repeats the key in its error text: it stands in no answer, no log and no file."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import anyio
import pytest

from tests.support.daemon import run_nous
from tests.support.home import Home
from tests.support.sse_server import Reply, answers, data_lines, serve, streams

pytestmark = pytest.mark.anyio

KEY = "sk-test-echoed-key-123456"
SAID = f"Incorrect API key provided: {KEY}."
ERROR = {"error": {"message": SAID, "type": "invalid_request_error", "code": "invalid_api_key", "status": SAID}}

REPLIES: dict[str, Reply] = {
    "401": answers(401, json.dumps(ERROR).encode()),
    "400": answers(400, json.dumps(ERROR).encode()),
    "not JSON": answers(400, SAID.encode(), "text/plain"),
    "in the stream": streams(data_lines(json.dumps(ERROR))),
}
VARIABLES = {
    "openai": "OPENAI_API_KEY",
    "openrouter": "OPENROUTER_API_KEY",
    "anthropic": "ANTHROPIC_API_KEY",
    "gemini": "GEMINI_API_KEY",
}


@pytest.mark.parametrize("name", REPLIES)
@pytest.mark.parametrize("provider", VARIABLES)
async def test_it_stands_nowhere(tmp_path: Path, provider: str, name: str) -> None:
    home = Home(tmp_path)
    async with serve(*[REPLIES[name]] * 8) as server:
        arguments = ("--provider", provider, "--model", "m", "--api-base", f"{server.url}/v1", "--bootstrap", "--json")
        prompt = partial(run_nous, home, "prompt", "hi", *arguments, environ={VARIABLES[provider]: KEY})
        done = await anyio.to_thread.run_sync(prompt)
    assert done.returncode == 1, done
    assert KEY in json.dumps([exchange.headers for exchange in server.exchanges])
    assert KEY.encode() not in done.stdout + done.stderr
    files = [path for path in home.root.rglob("*") if path.is_file()]
    assert any(path.name.endswith(".ndjson") for path in files)
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
