"""The floor: the least Python that posts a request with anyio, httpx and msgspec and writes one line per delta.

It answers each line of stdin (a prompt) with a ``ready``-like first line at start, one line per delta, and ``end``.
No session, no trace, no sequence, no tools.
"""

from __future__ import annotations

import os
import sys

import anyio
import httpx
import msgspec


class Delta(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Delta


class Chunk(msgspec.Struct):
    choices: list[Choice]


async def main(base: str, model: str) -> None:
    decode = msgspec.json.Decoder(Chunk).decode
    encode = msgspec.json.Encoder().encode
    async with httpx.AsyncClient(timeout=60) as client:
        os.write(1, b'{"type":"ready"}\n')
        while True:
            await anyio.wait_readable(0)
            command = os.read(0, 65536)
            if not command:
                return
            if b"ping" in command:
                os.write(1, b'{"type":"pong"}\n')
                continue
            body = encode({"model": model, "stream": True, "messages": [{"role": "user", "content": "x"}]})
            async with client.stream("POST", base + "/chat/completions", content=body) as response:
                rest = b""
                async for data in response.aiter_raw():
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if line.startswith(b"data: {"):
                            text = decode(line[6:]).choices[0].delta.content
                            if text is not None:
                                os.write(1, b'{"type":"message_update","delta":%b}\n' % encode(text))
            os.write(1, b'{"type":"agent_end"}\n')


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
