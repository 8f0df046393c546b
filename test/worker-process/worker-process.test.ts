// The process alone, with stand-ins for the worker's module: what they do is what a worker may do to us.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Arena } from "../../src/arena/arena.ts";
import { WorkerStartError } from "../../src/errors.ts";
import { type LogLine, startWorkerProcess, type WorkerProcess } from "../../src/worker-process.ts";

/** Between looks at something that another process does; a test's timeout bounds the looking. */
const LOOK_MS = 10;

let root = "";
const started: WorkerProcess[] = [];

/** Where the workers' sockets go, so that what is left over can be seen. */
let sockets = "";
const { TMPDIR } = process.env;

beforeAll(() => {
  root = mkdtempSync(path.join(tmpdir(), "marlin-test-"));
  sockets = path.join(root, "sockets");
  mkdirSync(sockets);
  process.env.TMPDIR = sockets;
});

afterAll(() => {
  if (TMPDIR === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = TMPDIR;
  rmSync(root, { recursive: true });
});

afterEach(async () => {
  for (const worker of started.splice(0)) await worker.stop({ grace: 0 });
  expect(readdirSync(sockets)).toEqual([]);
});

/** A "Python" that runs `body` in place of the worker, whatever module it is asked for. */
function standIn(name: string, body: string): string {
  const folder = path.join(root, name);
  mkdirSync(folder);
  writeFileSync(path.join(folder, "body.py"), body);
  const file = path.join(folder, "python");
  writeFileSync(file, `#!/bin/sh\nexec python3 "${folder}/body.py" "$@"\n`, { mode: 0o755 });
  return file;
}

function start(name: string, body: string, options: Parameters<typeof startWorkerProcess>[0] = {}) {
  const lines: LogLine[] = [];
  const worker = startWorkerProcess({ ...options, python: standIn(name, body), onLog: (line) => lines.push(line) });
  started.push(worker);
  return { worker, lines };
}

const folderOf = ({ endpoint }: WorkerProcess): string => path.dirname(endpoint.replace("ipc://", ""));

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await setTimeout(LOOK_MS);
}

function isAlive(pid: number): boolean {
  try {
    // A zombie has ended, too.
    return !/^State:\tZ/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

const WAIT_FOR_EOF = "import sys\nprint('ready', flush=True)\nsys.stdin.read()\n";

describe("a started worker", () => {
  test("gets its arguments, the package's modules, and unbuffered output", async () => {
    const body =
      "import os, sys, json; print(json.dumps([sys.argv[1:], os.environ['PYTHONPATH'], os.environ['PYTHONUNBUFFERED'], os.environ.get('EXTRA')]))";
    const { worker, lines } = start("arguments", body, { threads: 3, env: { EXTRA: "yes", PYTHONPATH: "/mine" } });
    expect(await worker.exited).toEqual({ code: 0, signal: null });
    const [args, pythonPath, unbuffered, extra] = JSON.parse(lines[0]?.text ?? "");
    expect(args).toEqual(["-m", "marlin.worker", "--endpoint", worker.endpoint, "--threads", "3"]);
    expect(pythonPath.split(path.delimiter)).toEqual([path.resolve("python"), "/mine"]);
    expect([unbuffered, extra]).toEqual(["1", "yes"]);
  });

  test.each([
    ["spins-shortly", {}, "1000"],
    ["spins-as-told", { GOMP_SPINCOUNT: "7" }, "7"],
    ["waits-as-told", { OMP_WAIT_POLICY: "active" }, null],
  ])("%s", async (name, env, spins) => {
    for (const variable of ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"]) vi.stubEnv(variable, undefined); // not the tester's
    const body = "import os, json; print(json.dumps(os.environ.get('GOMP_SPINCOUNT')))";
    const { worker, lines } = start(name, body, { env });
    vi.unstubAllEnvs();
    await worker.exited;
    expect(JSON.parse(lines[0]?.text ?? "")).toBe(spins);
  });

  test("inherits the arena as descriptor 3", async () => {
    const arena = await Arena.create({ bytes: 8192 });
    new Uint8Array(arena.view(0, 64)).fill(5);
    const body = "import mmap, sys; print(sys.argv[5:], mmap.mmap(3, 8192)[63])";
    const { worker, lines } = start("arena", body, { arena });
    await worker.exited;
    expect(lines).toEqual([
      { stream: "stdout", text: "['--arena-fd', '3', '--arena-bytes', '8192', '--arena-client-bytes', '4096'] 5" },
    ]);
    arena.close();
  });

  test("listens in a folder of its own, which is gone once it is connected", async () => {
    const { worker } = start("folder", WAIT_FOR_EOF);
    expect(existsSync(folderOf(worker))).toBe(true);
    worker.connected();
    expect(existsSync(folderOf(worker))).toBe(false);
  });

  test("may listen where the caller says, and then no folder is made", async () => {
    const { worker } = start("endpoint", WAIT_FOR_EOF, { endpoint: "tcp://127.0.0.1:5999" });
    expect(worker.endpoint).toBe("tcp://127.0.0.1:5999");
    expect(readdirSync(sockets)).toEqual([]);
  });

  test("leads a session of its own, so that a terminal's Ctrl-C is not its", async () => {
    const body = "import os; print(os.getpid() == os.getsid(0) == os.getpgid(0))";
    const { worker, lines } = start("session", body);
    await worker.exited;
    expect(lines).toEqual([{ stream: "stdout", text: "True" }]);
  });

  test("has every line relayed, the last one too, and the end of its stderr kept", async () => {
    const body = `
import sys
for i in range(3000):
    print("x" * 50, i, file=sys.stderr)
sys.stdout.write("no line end")
sys.stderr.write("last words")
`;
    const { worker, lines } = start("log", body);
    await worker.exited;
    expect(lines.filter(({ stream }) => stream === "stdout")).toEqual([{ stream: "stdout", text: "no line end" }]);
    expect(lines.filter(({ stream }) => stream === "stderr")).toHaveLength(3001);
    expect(worker.stderr).toMatch(/2998\nx+ 2999\nlast words\n$/);
    expect(worker.stderr.length).toBe(64 * 1024);
  });
});

describe("a worker that does not start", () => {
  test("because its Python does not exist", async () => {
    const worker = startWorkerProcess({ python: "/no/such/python" });
    expect(await worker.exited).toEqual({ code: null, signal: null });
    const error = worker.startError();
    expect(error).toBeInstanceOf(WorkerStartError);
    expect(error.message).toBe("The worker (`/no/such/python`) did not start: spawn /no/such/python ENOENT.");
    expect(error.cause).toMatchObject({ code: "ENOENT" });
    expect(existsSync(folderOf(worker))).toBe(false);
    expect(await worker.stop()).toEqual({ code: null, signal: null });
  });

  test("because its Python is no program", async () => {
    const worker = startWorkerProcess({ python: root });
    await worker.exited;
    expect(worker.startError().message).toMatch(/EACCES/);
    expect(existsSync(folderOf(worker))).toBe(false);
  });

  test("because its Python cannot even be named", () => {
    expect(() => startWorkerProcess({ python: "a\0b" })).toThrow(WorkerStartError);
  });

  test("because it fails: code, and the end of what it wrote", async () => {
    const body = "import sys\nfor i in range(40): print('line', i, file=sys.stderr)\nsys.exit(3)";
    const { worker } = start("fails", body);
    await worker.exited;
    const error = worker.startError();
    expect(error).toMatchObject({ exitCode: 3, signal: null, code: "worker_start_failed" });
    expect(error.message).toMatch(/did not start: it exited with code 3\. It wrote:\nline 20\n[\s\S]*\nline 39$/);
    expect(error.stderr).toMatch(/^line 0\n/);
    expect(existsSync(folderOf(worker))).toBe(false);
  });

  test("because a module is missing: Python's own words", async () => {
    const worker = startWorkerProcess({ env: { PYTHONHOME: "/nowhere" }, python: "python3" });
    started.push(worker);
    const { code } = await worker.exited;
    expect(code).toBe(1);
    expect(worker.startError().message).toMatch(/encodings/);
  });

  test("in time: the caller's reason stands in the message", () => {
    const { worker } = start("slow", WAIT_FOR_EOF);
    expect(worker.startError("it said nothing within 5 s").message).toMatch(
      /did not start: it said nothing within 5 s\.$/,
    );
  });
});

describe("a worker that dies", () => {
  test("by a signal: the signal and its last words", async () => {
    const body = "import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos.kill(os.getpid(), 9)";
    const { worker } = start("killed", body);
    expect(await worker.exited).toEqual({ code: null, signal: "SIGKILL" });
    expect(worker.exit).toEqual({ code: null, signal: "SIGKILL" });
    expect(worker.diedError()).toMatchObject({ exitCode: null, signal: "SIGKILL", stderr: "last words\n" });
    expect(worker.diedError().message).toBe("The worker died: it was ended by SIGKILL. It wrote:\nlast words");
  });

  test("is known at once, also when a process of its own still holds its output", async () => {
    const body = "import subprocess, sys\nprint(subprocess.Popen(['sleep', '60']).pid, flush=True)\nsys.exit(7)";
    const { worker, lines } = start("holder", body);
    expect(await worker.exited).toEqual({ code: 7, signal: null });
    process.kill(Number(lines[0]?.text), "SIGKILL");
  });
});

describe("stop", () => {
  test("ends a worker by the end of its stdin", async () => {
    const { worker, lines } = start("eof", WAIT_FOR_EOF);
    await until(() => lines.length > 0);
    expect(await worker.stop()).toEqual({ code: 0, signal: null });
    expect(await worker.stop()).toEqual({ code: 0, signal: null });
  });

  test("ends one that does not look at its stdin by SIGTERM", async () => {
    const { worker, lines } = start("deaf", "import time\nprint('ready', flush=True)\ntime.sleep(60)");
    await until(() => lines.length > 0);
    expect(await worker.stop({ grace: 200 })).toEqual({ code: null, signal: "SIGTERM" });
  });

  test("ends one that ignores SIGTERM, and its children, by SIGKILL", async () => {
    const body = `
import signal, subprocess, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(subprocess.Popen(["sleep", "60"]).pid, flush=True)
time.sleep(60)
`;
    const { worker, lines } = start("stubborn", body);
    await until(() => lines.length > 0);
    const grandchild = Number(lines[0]?.text);
    expect(isAlive(grandchild)).toBe(true);
    expect(await worker.stop({ grace: 100 })).toEqual({ code: null, signal: "SIGKILL" });
    await until(() => !isAlive(grandchild));
  });
});

describe("this process", () => {
  const module = pathToFileURL("dist/worker-process.js").href;
  const program = (python: string, body: string): string => `
    import { startWorkerProcess } from ${JSON.stringify(module)};
    const worker = startWorkerProcess({ python: ${JSON.stringify(python)}, onLog: ({ text }) => text === "ready" && ready() });
    function ready() { ${body}; console.log(worker.pid); }
  `;

  async function run(python: string, body: string) {
    const child = spawn(process.execPath, ["--input-type=module", "-e", program(python, body)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [line] = await once(child.stdout, "data");
    const exit = once(child, "exit");
    return { child, workerPid: Number(line), exit };
  }

  test("may end while its worker runs, which then ends too", async () => {
    const { workerPid, exit } = await run(standIn("unref", WAIT_FOR_EOF), "worker.unref()");
    expect(await exit).toEqual([0, null]);
    await until(() => !isAlive(workerPid));
  });

  test("stays while its worker runs, unless told otherwise", async () => {
    const body = "process.on('SIGUSR2', () => void worker.stop())";
    const { child, workerPid, exit } = await run(standIn("ref", WAIT_FOR_EOF), body);
    expect(isAlive(workerPid)).toBe(true);
    child.kill("SIGUSR2");
    expect(await exit).toEqual([0, null]);
  });

  test("leaves no worker behind when it is killed", async () => {
    const { child, workerPid, exit } = await run(standIn("orphan", WAIT_FOR_EOF), "worker.connected()");
    child.kill("SIGKILL");
    expect(await exit).toEqual([null, "SIGKILL"]);
    await until(() => !isAlive(workerPid));
  });
});
