import { once } from "node:events";
import fs from "node:fs";
import { createServer, type Server } from "node:net";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { untilListening } from "../../src/transports/listening.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin-listening-"));
afterAll(() => fs.rmSync(folder, { recursive: true }));

const never = new AbortController().signal;

async function listen(server: Server, target: string | { port: number; host: string }): Promise<string> {
  server.listen(target);
  await once(server, "listening");
  const address = server.address();
  if (typeof address === "string") return `ipc://${address}`;
  return `tcp://${address?.family === "IPv6" ? `[${address.address}]` : address?.address}:${address?.port}`;
}

describe("untilListening", () => {
  test.each([
    ["ipc", () => path.join(folder, "socket")],
    ["tcp", () => ({ port: 0, host: "127.0.0.1" })],
  ])("resolves where somebody listens on %s", async (_, target) => {
    const server = createServer();
    await untilListening(await listen(server, target()), never);
    server.close();
  });

  test("waits for one who begins later", async () => {
    const server = createServer();
    const socket = path.join(folder, "later");
    const waiting = untilListening(`ipc://${socket}`, never);
    const connection = once(server, "connection");
    await listen(server, socket);
    await waiting;
    await connection;
    server.close();
  });

  test("rejects with the reason of its signal", async () => {
    const controller = new AbortController();
    const waiting = untilListening(`ipc://${path.join(folder, "nobody")}`, controller.signal);
    controller.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    await expect(untilListening("ipc:///nobody", controller.signal)).rejects.toThrow("enough");
  });

  test.each(["http://host:1", "tcp://host", "tcp://host:99999"])("leaves %s to the transport", async (endpoint) => {
    await untilListening(endpoint, never);
  });
});
