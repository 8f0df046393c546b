import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setImmediate } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { CancelledError, ConnectError, ConnectionClosedError, InvalidArgumentError } from "../../src/errors.ts";
import { DEFAULT_LIMITS } from "../../src/protocol.ts";
import { connectZeromq } from "../../src/transports/zeromq.ts";
import { testTransport } from "./contract.ts";
import { RouterPeer } from "./router-peer.ts";

let directory = "";
let sockets = 0;
const children: ChildProcess[] = [];

beforeAll(() => {
  directory = mkdtempSync(path.join(tmpdir(), "marlin-test-"));
});

afterAll(() => {
  rmSync(directory, { recursive: true });
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
});

const newEndpoint = (): string => `ipc://${path.join(directory, `${sockets++}`)}`;

async function connectTo(peer: RouterPeer, endpoint: string) {
  const listening = await peer.listen(endpoint);
  const transport = await connectZeromq(listening);
  await transport.send([Buffer.from("hello")]);
  await peer.meet();
  return { transport, peer };
}

testTransport("ZeroMQ over ipc", () => connectTo(new RouterPeer(), newEndpoint()));
testTransport("ZeroMQ over tcp", () => connectTo(new RouterPeer(), "tcp://127.0.0.1:*"));

/** A process of its own that echoes; on "die" it answers and is killed by a signal it cannot catch. */
async function spawnEcho(): Promise<{ readonly endpoint: string; readonly child: ChildProcess }> {
  const endpoint = newEndpoint();
  const script = `
    import { Router } from "zeromq";
    const socket = new Router({ linger: 0, mandatory: true });
    await socket.bind(${JSON.stringify(endpoint)});
    console.log("listening");
    for await (const message of socket) await socket.send(message);
  `;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  if (child.stdout !== null) await once(child.stdout, "data");
  return { endpoint, child };
}

describe("connecting", () => {
  test("waits for a worker that begins to listen later", async () => {
    const endpoint = newEndpoint();
    const connecting = connectZeromq(endpoint);
    const peer = new RouterPeer();
    // Long enough for several refused attempts; the order is what matters, not the time.
    await expect(connectZeromq(endpoint, { connectTimeout: 100 })).rejects.toThrow(ConnectError);
    await peer.listen(endpoint);
    const transport = await connecting;
    transport.close();
    peer.close();
  });

  test.each([
    ["a path where nobody listens", (): string => newEndpoint()],
    ["a port where nobody listens", (): string => "tcp://127.0.0.1:9"],
  ])("gives up on %s after the timeout, naming both", async (_, endpoint) => {
    const connecting = connectZeromq(endpoint(), { connectTimeout: 80 });
    await expect(connecting).rejects.toThrow(ConnectError);
    await expect(connecting).rejects.toThrow(/Nobody answered at `.+` within 80 ms/);
  });

  test("gives up on a server that says nothing", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    await expect(connectZeromq(`tcp://127.0.0.1:${port}`, { connectTimeout: 150 })).rejects.toThrow(ConnectError);
    server.close();
  });

  test("ends by its signal, before and during", async () => {
    const reason = new Error("changed my mind");
    const before = connectZeromq(newEndpoint(), { signal: AbortSignal.abort(reason) });
    await expect(before).rejects.toThrow(CancelledError);
    await expect(before).rejects.toMatchObject({ cause: reason });
    const controller = new AbortController();
    const during = connectZeromq(newEndpoint(), { signal: controller.signal });
    controller.abort(reason);
    await expect(during).rejects.toMatchObject({ code: "cancelled", cause: reason });
  });

  test.each([
    "",
    "ipc://",
    "tcp://host",
    "tcp://:1",
    "tcp://host:0",
    "tcp://host:65536",
    "inproc://x",
    "http://host:1",
    `ipc://${"x".repeat(108)}`,
  ])("refuses the endpoint %j", async (endpoint) => {
    await expect(connectZeromq(endpoint)).rejects.toThrow(InvalidArgumentError);
  });
});

describe("a peer that is killed", () => {
  test("fails the receive that waits for it", async () => {
    const { endpoint, child } = await spawnEcho();
    const transport = await connectZeromq(endpoint);
    await transport.send([Buffer.from("hello")]);
    expect(Buffer.from((await transport.receive())[0] ?? []).toString()).toBe("hello");
    const pending = expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
    child.kill("SIGKILL");
    await pending;
    expect(transport.closed).toBe(true);
  });

  test("while nobody receives, fails the next receive", async () => {
    const { endpoint, child } = await spawnEcho();
    const transport = await connectZeromq(endpoint);
    child.kill("SIGKILL");
    await once(child, "exit");
    await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
  });

  test("after an idle time, when its observer was replaced, fails the next receive", async () => {
    const { endpoint, child } = await spawnEcho();
    const transport = await connectZeromq(endpoint);
    await transport.send([Buffer.from("hello")]);
    await transport.receive();
    // The connection rests after 20 ms, which nothing outside of it can see. If it does not rest before the kill, this
    // tests no more than the test before does, and passes as well.
    await expect(connectZeromq(newEndpoint(), { connectTimeout: 100 })).rejects.toThrow(ConnectError);
    child.kill("SIGKILL");
    await once(child, "exit");
    await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
  });

  test("fails what is still to be sent", async () => {
    const { endpoint, child } = await spawnEcho();
    const transport = await connectZeromq(endpoint);
    const pending = expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
    child.kill("SIGKILL");
    await pending;
    await expect(transport.send([Buffer.from("too late")])).rejects.toThrow(ConnectionClosedError);
  });

  test("is never replaced by the next to listen at its endpoint", async () => {
    const { endpoint, child } = await spawnEcho();
    const transport = await connectZeromq(endpoint);
    child.kill("SIGKILL");
    await once(child, "exit");
    const replacement = new RouterPeer();
    await replacement.listen(endpoint);
    await Promise.allSettled([transport.send([Buffer.from("meant for the dead")])]);
    await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
    const probe = await connectZeromq(endpoint);
    await probe.send([Buffer.from("probe")]);
    expect(Buffer.from((await replacement.receive())[0] ?? []).toString()).toBe("probe");
    probe.close();
    replacement.close();
  });
});

test("connections that end leave no descriptor behind, whoever ends them and in whatever state", async () => {
  const descriptors = (): number => readdirSync("/proc/self/fd").length;
  const { endpoint, child } = await spawnEcho();
  const cycle = async (): Promise<void> => {
    (await connectZeromq(endpoint)).close();
    const receiving = await connectZeromq(endpoint);
    const pending = expect(receiving.receive()).rejects.toThrow(ConnectionClosedError);
    receiving.close();
    await pending;
    await expect(connectZeromq(newEndpoint(), { connectTimeout: 50 })).rejects.toThrow(ConnectError);
    const aborted = connectZeromq(newEndpoint(), { signal: AbortSignal.timeout(10) });
    await expect(aborted).rejects.toThrow(CancelledError);
  };
  await cycle();
  const before = descriptors();
  for (let i = 0; i < 10; i++) await cycle();
  // ZeroMQ closes on a thread of its own; the test's timeout bounds the wait.
  while (descriptors() > before) await setImmediate();
  child.kill("SIGKILL");
});

test("a frame beyond the limit ends the connection instead of filling memory", async () => {
  const peer = new RouterPeer();
  const endpoint = newEndpoint();
  await peer.listen(endpoint);
  const transport = await connectZeromq(endpoint, { limits: { ...DEFAULT_LIMITS, max_frame_bytes: 1000 } });
  await transport.send([Buffer.from("hello")]);
  await peer.meet();
  await peer.send([new Uint8Array(1000)]);
  expect((await transport.receive())[0]?.byteLength).toBe(1000);
  await peer.send([new Uint8Array(1001)]);
  await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
  peer.close();
});

describe("a program that holds a connection", () => {
  const module = pathToFileURL("dist/transports/zeromq.js").href;
  const run = (endpoint: string, body: string) =>
    spawnSync(
      process.execPath,
      [
        "--input-type=module",
        "-e",
        `import { connectZeromq } from ${JSON.stringify(module)};
        const transport = await connectZeromq(${JSON.stringify(endpoint)});
        ${body}`,
      ],
      { encoding: "utf8", timeout: 15_000 },
    );

  test("ends by itself when it has never used it", async () => {
    const { endpoint } = await spawnEcho();
    expect(run(endpoint, "console.log('connected')")).toMatchObject({ status: 0, stdout: "connected\n", stderr: "" });
  });

  test("ends by itself when it has used it and waits for nothing", async () => {
    const { endpoint } = await spawnEcho();
    const body = `
      await transport.send([Buffer.from("x")]);
      await transport.receive();
      console.log("done");
    `;
    expect(run(endpoint, body)).toMatchObject({ status: 0, stdout: "done\n", stderr: "" });
  });

  test("stays while it waits for a message", async () => {
    const { endpoint } = await spawnEcho();
    const body = `
      process.on("exit", () => console.log("exit"));
      setTimeout(() => transport.send([Buffer.from("x")]), 100).unref();
      await transport.receive();
      console.log("received");
    `;
    expect(run(endpoint, body)).toMatchObject({ status: 0, stdout: "received\nexit\n", stderr: "" });
  });

  test("ends by itself when its peer is dead and messages are queued", async () => {
    const { endpoint, child } = await spawnEcho();
    const body = `
      process.kill(${child.pid}, "SIGKILL");
      for (let i = 0; i < 10; i++) transport.send([Buffer.alloc(1000)]).catch(() => {});
      await transport.receive().catch((error) => console.log(error.code));
    `;
    const ended = run(endpoint, body);
    expect(ended).toMatchObject({ status: 0, signal: null, stderr: "" });
    expect(ended.stdout).toMatch(/^(connection_closed)?\n?$/);
  });
});
