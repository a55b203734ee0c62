"""A provider that is never the bottleneck: prebuilt byte streams over HTTP on loopback, one thread per connection.

The model's name says what is streamed: ``burst-N-B`` (N deltas of B bytes as fast as the socket takes them),
``paced-N-R`` (N deltas at R per second, each holding its send time in microseconds), ``tool`` (one call of ``read``,
then a short answer), ``stamped`` (one delta that holds when its first byte was sent), ``late`` (a short answer whose
last byte's send time is written to stderr).
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from functools import cache

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def delta(text: str) -> bytes:
    return b'data: {"choices":[{"index":0,"delta":{"content":%b}}]}\n\n' % json.dumps(text).encode()


def end(reason: str = "stop") -> bytes:
    finish = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"%b"}]}\n\n' % reason.encode()
    return finish + b"data: [DONE]\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@cache
def burst(count: int, size: int) -> bytes:
    """One HTTP chunk per event, as servers that flush each token send it; all of it in one buffer."""
    return HEAD + chunk(delta("x" * size)) * count + chunk(end()) + b"0\r\n\r\n"


@cache
def tool_call() -> bytes:
    call = {"index": 0, "id": "call_b", "function": {"name": "read", "arguments": '{"path":"small.txt"}'}}
    event = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}).encode() + b"\n\n"
    return HEAD + chunk(event) + chunk(end("tool_calls")) + b"0\r\n\r\n"


def serve_paced(conn: socket.socket, count: int, rate: float) -> None:
    conn.sendall(HEAD)
    start = time.perf_counter()
    for number in range(count):
        wait = start + number / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        conn.sendall(chunk(delta(f"{time.time_ns()} ")))
    conn.sendall(chunk(end()) + b"0\r\n\r\n")


def answer(conn: socket.socket, body: bytes) -> None:
    request = json.loads(body)
    kind, *numbers = request["model"].split("-")
    if kind == "burst":
        conn.sendall(burst(int(numbers[0]), int(numbers[1])))
    elif kind == "paced":
        serve_paced(conn, int(numbers[0]), float(numbers[1]))
    elif kind == "stamped":
        conn.sendall(HEAD + chunk(delta(f"{time.time_ns()}")) + chunk(end()) + b"0\r\n\r\n")
    elif kind == "tool":
        told = any(m["role"] == "tool" for m in request["messages"][-1:])
        conn.sendall(burst(3, 8) if told else tool_call())
    else:
        conn.sendall(HEAD + chunk(delta("hello") * 3))
        conn.sendall(chunk(end()) + b"0\r\n\r\n")
    sys.stderr.write(f"{time.time_ns()}\n")
    sys.stderr.flush()


def serve(conn: socket.socket) -> None:
    with conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while True:
            while b"\r\n\r\n" not in data:
                piece = conn.recv(65536)
                if not piece:
                    return
                data += piece
            head, _, data = data.partition(b"\r\n\r\n")
            lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            length = int(lengths[0].split(b":")[1]) if lengths else 0
            while len(data) < length:
                data += conn.recv(65536)
            body, data = data[:length], data[length:]
            try:
                answer(conn, body)
            except (BrokenPipeError, ConnectionResetError):
                return


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    print(listener.getsockname()[1], flush=True)
    while True:
        conn, _ = listener.accept()
        threading.Thread(target=serve, args=(conn,), daemon=True).start()


if __name__ == "__main__":
    main()
