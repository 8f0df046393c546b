import { once } from "node:events";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { runAll } from "../../../scripts/testing/command.mjs";

// Starts a process that would never end, which holds a connection to the socket in its argument.
const STARTS_ANOTHER = `
const { spawn } = require("node:child_process");
const connect = "require('node:net').connect(process.argv[1]); setInterval(() => {}, 1000)";
spawn(process.execPath, ["-e", connect, process.argv[1]], { stdio: "ignore" });
setInterval(() => {}, 1000);
`;

test("what a command started ends with it when it is interrupted", async () => {
  const socket = path.join(os.tmpdir(), `marlin-command-test-${process.pid}`);
  const server = net.createServer().listen(socket);
  const interrupted = new AbortController();
  const connected = once(server, "connection");
  const running = runAll([[process.execPath, "-e", STARTS_ANOTHER, socket]], {
    env: process.env,
    signal: interrupted.signal,
  });
  const [connection] = await connected;
  const closed = once(connection.resume(), "close");
  interrupted.abort();
  expect(await running).toBe(false);
  await closed;
  server.close();
});

test("a command that cannot be started is a failure, and the next one runs all the same", async () => {
  const options = { env: process.env, signal: new AbortController().signal };
  expect(await runAll([["/no/such/program"], [process.execPath, "-e", ""]], options)).toBe(false);
  expect(await runAll([[process.execPath, "-e", ""]], options)).toBe(true);
});

test("what a command prints goes to the writer that it was given, both streams of it", async () => {
  let printed = "";
  const options = {
    env: process.env,
    signal: new AbortController().signal,
    write: (text: string | Buffer) => {
      printed += text;
    },
  };
  await runAll([[process.execPath, "-e", `console.log("out"); console.error("err")`], ["/no/such/program"]], options);
  expect(printed).toContain("out\n");
  expect(printed).toContain("err\n");
  expect(printed).toContain("`/no/such/program` could not be started");
});
