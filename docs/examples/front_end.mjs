// A front end for nous in one file, without dependencies.
//
//     node front_end.mjs DIR [FLAGS OF nous serve]
//
// DIR is where the socket of the second part is made.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createConnection } from "node:net";

/** The daemon's answer to a command was an error. */
class RefusedError extends Error {
  constructor(error) {
    super(error.message);
    this.code = error.code;
    this.reason = error.cause;
  }
}

/** Shows events. What has been shown of a run is not shown again, so that reconnecting repeats nothing. */
class Screen {
  shown = new Map(); // run_id: the seq of the last event that was shown
  #waiting = new Map();

  /** Returns a promise that resolves when the first event of this type of the run has been shown. */
  seen(runId, type) {
    return this.#place(runId, type).promise;
  }

  #place(runId, type) {
    const key = `${runId} ${type}`;
    if (!this.#waiting.has(key)) {
      const place = {};
      place.promise = new Promise((resolve) => (place.resolve = resolve));
      this.#waiting.set(key, place);
    }
    return this.#waiting.get(key);
  }

  show({ type, seq, payload }) {
    const runId = payload.run_id ?? "";
    if (seq !== undefined) {
      if (seq <= (this.shown.get(runId) ?? 0)) return;
      this.shown.set(runId, seq);
    }
    this.#print(type, payload);
    this.#place(runId, type).resolve(payload);
  }

  #print(type, payload) {
    if (type === "message_update") process.stdout.write(payload.delta);
    else if (type === "message_end" && payload.role === "user") console.log(`> ${payload.text}`);
    else if (type === "message_end" && payload.role === "assistant") console.log();
    else if (type === "tool_execution_start") console.log(`[${payload.tool_name} ${JSON.stringify(payload.arguments)}]`);
    else if (type === "tool_execution_end") console.log(`[${payload.is_error ? "failed: " : ""}${payload.result ?? ""}]`);
    else if (type === "warning" || type === "error") console.log(`(${payload.message})`);
    else if (type === "agent_end") console.log(`(${payload.status})`);
  }
}

/** Sends commands and matches answers by id; events go to the screen. */
class Connection {
  #input;
  #screen;
  #answers = new Map();
  #count = 0;
  #rest = [];

  constructor(output, input, screen) {
    this.#input = input;
    this.#screen = screen;
    input.on("error", () => {}); // The end of the output says that the daemon has gone.
    output.on("data", (chunk) => this.#read(chunk));
    this.ended = new Promise((resolve) => output.on("close", resolve));
  }

  // LF alone ends a line: the readline module would also split at U+2028.
  #read(chunk) {
    for (let end; (end = chunk.indexOf("\n")) >= 0; chunk = chunk.subarray(end + 1)) {
      const line = Buffer.concat([...this.#rest, chunk.subarray(0, end)]);
      this.#rest = [];
      this.#receive(JSON.parse(line));
    }
    this.#rest.push(chunk);
  }

  #receive(message) {
    if (message.ok === undefined) {
      this.#screen.show(message);
    } else {
      this.#answers.get(message.id)?.(message);
      this.#answers.delete(message.id);
    }
  }

  /** Waits for something that this connection brings; a daemon that has gone brings nothing. */
  async until(promise) {
    const gone = Symbol("gone");
    const first = await Promise.race([promise, this.ended.then(() => gone)]);
    if (first === gone) throw new Error("the daemon has gone");
    return first;
  }

  /** Sends a command and returns the payload of its answer. */
  async call(type, payload = {}) {
    const id = `c${++this.#count}`;
    const answer = new Promise((resolve) => this.#answers.set(id, resolve));
    this.#input.write(JSON.stringify({ v: "1", id, type, payload }) + "\n");
    const message = await this.until(answer);
    if (!message.ok) throw new RefusedError(message.error);
    return message.payload;
  }

  /** Says that no more commands come, and reads to the end. */
  async close() {
    this.#input.end();
    await this.ended;
  }
}

async function sayHello(connection) {
  const hello = await connection.call("hello", { client: { name: "front_end", version: "1" }, prompt_wait: false });
  if (hello.protocol !== "1") throw new Error(`unknown protocol ${hello.protocol}`);
}

/** Starts a run and waits for its end. */
async function ask(connection, screen, text) {
  const run = await connection.call("prompt", { text });
  await connection.until(screen.seen(run.run_id, "agent_end"));
  return run;
}

/** Starts a run and corrects it as soon as it speaks. If it has ended by then, the correction is a new prompt. */
async function askAndSteer(connection, screen, text, correction) {
  const run = await connection.call("prompt", { text });
  await connection.until(screen.seen(run.run_id, "message_update"));
  try {
    await connection.call("steer", { text: correction, run_id: run.run_id });
  } catch (refused) {
    if (refused.reason !== "no_active_run") throw refused;
    await ask(connection, screen, correction);
  }
  await connection.until(screen.seen(run.run_id, "agent_end"));
}

async function askAndAbort(connection, screen, text) {
  const run = await connection.call("prompt", { text });
  await connection.until(screen.seen(run.run_id, "message_update"));
  await connection.call("abort", { run_id: run.run_id });
  await connection.until(screen.seen(run.run_id, "agent_end"));
}

/** Talks in a second session, lists both, and goes back to the first. */
async function changeSessions(connection, screen, first) {
  await connection.call("new_session");
  await ask(connection, screen, "Another subject");
  const { sessions } = await connection.call("list_sessions", { limit: 50 });
  for (const session of sessions) console.log(`session: ${session.snippet}`);
  await connection.call("switch_session", { session_id: first });
  const { messages } = await connection.call("get_messages", { session_id: first });
  console.log(`back in: ${messages[0].text}`);
}

/** The daemon is a child: it ends when this program closes its stdin, or dies. */
async function overStdio(flags) {
  const daemon = spawn("nous", ["serve", ...flags], { stdio: ["pipe", "pipe", "inherit"] });
  const exit = once(daemon, "exit");
  const screen = new Screen();
  const connection = new Connection(daemon.stdout, daemon.stdin, screen);
  const ready = await connection.until(screen.seen("", "status"));
  console.log(`ready: ${ready.server} with ${ready.provider}`);
  await sayHello(connection);
  const run = await ask(connection, screen, "What is here?");
  await askAndSteer(connection, screen, "Count to three", "In French, please");
  await askAndAbort(connection, screen, "Tell me everything");
  await changeSessions(connection, screen, run.session_id);
  await connection.close();
  console.log(`exit code ${(await exit)[0]}`);
}

/** Subscribes to a daemon's events, then opens a connection for commands. */
async function connect(path, screen) {
  const sockets = [createConnection(`${path}.events`), createConnection(path)];
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  const [events, commands] = sockets.map((socket) => new Connection(socket, socket, screen));
  await sayHello(commands);
  return { commands, events };
}

/** Shows what of a run has not been shown yet, from the disk. An active run goes on over PATH.events. */
async function catchUp(commands, screen, runId) {
  for (let after = screen.shown.get(runId) ?? 0; after !== undefined; ) {
    const page = await commands.call("get_events", { run_id: runId, after_seq: after });
    for (const event of page.events) screen.show(event);
    after = page.next_after_seq;
  }
}

/** The daemon is on its own: runs go on while no front end is connected. */
async function overASocket(path, flags) {
  const daemon = spawn("nous", ["serve", "--socket", path, ...flags], { stdio: ["ignore", "pipe", "inherit"] });
  const exit = once(daemon, "exit");
  await Promise.race([once(daemon.stdout, "data"), exit]); // ready: the socket is there
  const screen = new Screen();
  let { commands, events } = await connect(path, screen);
  const { run_id: runId } = await commands.call("prompt", { text: "Take your time" });
  await events.until(screen.seen(runId, "message_update"));
  await commands.close();
  await events.close();
  ({ commands, events } = await connect(path, screen));
  await catchUp(commands, screen, runId);
  await events.until(screen.seen(runId, "agent_end"));
  await commands.call("shutdown");
  await commands.close();
  await events.close();
  console.log(`exit code ${(await exit)[0]}`);
}

const [directory, ...flags] = process.argv.slice(2);
await overStdio(flags);
await overASocket(`${directory}/nous.sock`, flags);
