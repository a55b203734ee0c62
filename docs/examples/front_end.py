"""A front end for nous in one file, with the standard library only.

    python front_end.py DIR [FLAGS OF nous serve]

DIR is where the socket of the second part is made.
"""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE

MAX_LINE_BYTES = 16 * 1024 * 1024


class RefusedError(Exception):
    """The daemon's answer to a command was an error."""

    def __init__(self, error):
        super().__init__(error["message"])
        self.code = error["code"]
        self.cause = error.get("cause")


class Screen:
    """Shows events. What has been shown of a run is not shown again, so that reconnecting repeats nothing."""

    def __init__(self):
        self.shown = {}  # run_id: the seq of the last event that was shown
        self._waiting = {}

    def seen(self, run_id, kind):
        """Return a future that is done when the first event of this type of the run has been shown."""
        return self._waiting.setdefault((run_id, kind), asyncio.get_running_loop().create_future())

    def show(self, event):
        payload = event["payload"]
        run_id = payload.get("run_id", "")
        if "seq" in event:
            if event["seq"] <= self.shown.get(run_id, 0):
                return
            self.shown[run_id] = event["seq"]
        self._print(event["type"], payload)
        future = self.seen(run_id, event["type"])
        if not future.done():
            future.set_result(payload)

    def _print(self, kind, payload):
        match kind:
            case "message_update":
                print(payload["delta"], end="", flush=True)
            case "message_end" if payload["role"] == "user":
                print(f"> {payload['text']}")
            case "message_end" if payload["role"] == "assistant":
                print()
            case "tool_execution_start":
                print(f"[{payload['tool_name']} {json.dumps(payload['arguments'])}]")
            case "tool_execution_end":
                print(f"[{'failed: ' if payload['is_error'] else ''}{payload.get('result', '')}]")
            case "warning" | "error":
                print(f"({payload['message']})")
            case "agent_end":
                print(f"({payload['status']})")


class Connection:
    """Sends commands and matches answers by id; events go to the screen."""

    def __init__(self, reader, writer, screen):
        self._writer = writer
        self._screen = screen
        self._answers = {}
        self._count = 0
        self.reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader):
        # LF alone ends a line. What comes after the last LF is a line that was cut.
        while (line := await reader.readline()).endswith(b"\n"):
            message = json.loads(line)
            if "ok" not in message:
                self._screen.show(message)
            elif message["id"] in self._answers:
                self._answers.pop(message["id"]).set_result(message)

    async def until(self, future):
        """Wait for something that this connection brings; a daemon that has gone brings nothing."""
        await asyncio.wait({future, self.reading}, return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            raise ConnectionError("the daemon has gone")
        return future.result()

    async def call(self, kind, **payload):
        """Send a command and return the payload of its answer."""
        self._count += 1
        command_id = f"c{self._count}"
        answer = self._answers[command_id] = asyncio.get_running_loop().create_future()
        line = json.dumps({"v": "1", "id": command_id, "type": kind, "payload": payload})
        self._writer.write(line.encode() + b"\n")
        await self._writer.drain()
        message = await self.until(answer)
        if not message["ok"]:
            raise RefusedError(message["error"])
        return message["payload"]

    async def close(self):
        """Say that no more commands come, and read to the end."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        await self.reading
        self._writer.close()


async def say_hello(connection):
    hello = await connection.call("hello", client={"name": "front_end", "version": "1"}, prompt_wait=False)
    assert hello["protocol"] == "1"


async def ask(connection, screen, text):
    """Start a run and wait for its end."""
    run = await connection.call("prompt", text=text)
    await connection.until(screen.seen(run["run_id"], "agent_end"))
    return run


async def ask_and_steer(connection, screen, text, correction):
    """Start a run and correct it as soon as it speaks. If it has ended by then, the correction is a new prompt."""
    run = await connection.call("prompt", text=text)
    await connection.until(screen.seen(run["run_id"], "message_update"))
    try:
        await connection.call("steer", text=correction, run_id=run["run_id"])
    except RefusedError as refused:
        if refused.cause != "no_active_run":
            raise
        await ask(connection, screen, correction)
    await connection.until(screen.seen(run["run_id"], "agent_end"))


async def ask_and_abort(connection, screen, text):
    run = await connection.call("prompt", text=text)
    await connection.until(screen.seen(run["run_id"], "message_update"))
    await connection.call("abort", run_id=run["run_id"])
    await connection.until(screen.seen(run["run_id"], "agent_end"))


async def change_sessions(connection, screen, first):
    """Talk in a second session, list both, and go back to the first."""
    await connection.call("new_session")
    await ask(connection, screen, "Another subject")
    listed = await connection.call("list_sessions", limit=50)
    for session in listed["sessions"]:
        print(f"session: {session['snippet']}")
    await connection.call("switch_session", session_id=first)
    messages = (await connection.call("get_messages", session_id=first))["messages"]
    print(f"back in: {messages[0]['text']}")


async def over_stdio(flags):
    """The daemon is a child: it ends when this program closes its stdin, or dies."""
    process = await asyncio.create_subprocess_exec(
        "nous", "serve", *flags, stdin=PIPE, stdout=PIPE, limit=MAX_LINE_BYTES
    )
    screen = Screen()
    connection = Connection(process.stdout, process.stdin, screen)
    ready = await connection.until(screen.seen("", "status"))
    print(f"ready: {ready['server']} with {ready['provider']}")
    await say_hello(connection)
    run = await ask(connection, screen, "What is here?")
    await ask_and_steer(connection, screen, "Count to three", "In French, please")
    await ask_and_abort(connection, screen, "Tell me everything")
    await change_sessions(connection, screen, run["session_id"])
    await connection.close()
    print(f"exit code {await process.wait()}")


async def connect(path, screen):
    """Subscribe to a daemon's events, then open a connection for commands."""
    events = Connection(*await asyncio.open_unix_connection(f"{path}.events", limit=MAX_LINE_BYTES), screen)
    commands = Connection(*await asyncio.open_unix_connection(path, limit=MAX_LINE_BYTES), screen)
    await say_hello(commands)
    return commands, events


async def catch_up(commands, screen, run_id):
    """Show what of a run has not been shown yet, from the disk. An active run goes on over PATH.events."""
    after_seq = screen.shown.get(run_id, 0)
    while after_seq is not None:
        page = await commands.call("get_events", run_id=run_id, after_seq=after_seq)
        for event in page["events"]:
            screen.show(event)
        after_seq = page.get("next_after_seq")


async def over_a_socket(path, flags):
    """The daemon is on its own: runs go on while no front end is connected."""
    process = await asyncio.create_subprocess_exec(
        "nous", "serve", "--socket", path, *flags, stdin=DEVNULL, stdout=PIPE
    )
    await process.stdout.readline()  # ready: the socket is there
    screen = Screen()
    commands, events = await connect(path, screen)
    run_id = (await commands.call("prompt", text="Take your time"))["run_id"]
    await events.until(screen.seen(run_id, "message_update"))
    await commands.close()
    await events.close()
    commands, events = await connect(path, screen)
    await catch_up(commands, screen, run_id)
    await events.until(screen.seen(run_id, "agent_end"))
    await commands.call("shutdown")
    await commands.close()
    await events.close()
    print(f"exit code {await process.wait()}")


async def main(directory, *flags):
    await over_stdio(flags)
    await over_a_socket(f"{directory}/nous.sock", flags)


asyncio.run(main(*sys.argv[1:]))
