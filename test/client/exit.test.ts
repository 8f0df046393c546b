// How programs end, and that their workers end with them: each runs in a process of its own.

import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { describe, expect, test, vi } from "vitest";
import { findPython } from "../../src/worker-process.ts";
import { Program } from "./programs.ts";

/** What can be seen of a program that starts its worker. */
interface Starting {
  readonly worker: number | undefined;
  /** In its temporary folder. */
  readonly files: readonly string[];
}

/** As one word of a shell's command. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", String.raw`'\''`)}'`;
}

function readPid(file: string): number | undefined {
  return fs.existsSync(file) ? Number(fs.readFileSync(file, "utf8")) || undefined : undefined;
}

describe("a program", () => {
  test("that has nothing left to do exits by itself, and its worker with it", async () => {
    const program = new Program("test/programs/idle");
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    const { worker, ...seen } = await program.firstLine<{ worker: number }>();
    expect(seen).toEqual({ view: [2, 3, 4], value: 1 });
    expect(program.stdout).not.toContain("never");
    await program.expectNothingLeft(worker);
  });

  test("that has given up a call exits by itself, though Python goes on with it", async () => {
    const program = new Program("test/programs/give-up");
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    const { worker, code } = await program.firstLine<{ worker: number; code: string }>();
    expect(code).toBe("timeout");
    await program.expectNothingLeft(worker);
  });

  test("that closes a worker which does not answer goes on when the worker is killed", async () => {
    const program = new Program("test/programs/close");
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    const { worker } = await program.firstLine<{ worker: number }>();
    await program.expectNothingLeft(worker);
  });

  test("that is killed in the middle of a call leaves no worker and no files", async () => {
    const program = new Program("test/programs/hang");
    const { worker } = await program.firstLine<{ worker: number }>();
    program.kill("SIGKILL", "program");
    expect(await program.exited()).toEqual({ code: null, signal: "SIGKILL" });
    await program.expectNothingLeft(worker);
  });

  test("that is killed while Python cannot even hear of it leaves no worker and no files", async () => {
    const program = new Program("test/programs/hog");
    const { worker } = await program.firstLine<{ worker: number }>();
    program.kill("SIGKILL", "program");
    await program.exited();
    await program.expectNothingLeft(worker);
  });

  test.each<[string, (starting: Starting) => boolean]>([
    ["its worker starts", ({ worker }) => worker !== undefined],
    ["its worker waits for it", ({ files }) => files.some((file) => file.endsWith("/worker"))],
  ])("that is killed while %s leaves no worker and no files", async (_, isTime) => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin-starting-"));
    const pidFile = path.join(folder, "pid");
    const python = path.join(folder, "python");
    // The Python that says when it runs: from then on the worker knows of the folder for its socket.
    fs.writeFileSync(python, `#!/bin/sh\necho $$ > ${quoted(pidFile)}\nexec ${quoted(findPython())} "$@"\n`, {
      mode: 0o700,
    });
    vi.stubEnv("MARLIN_PYTHON", python);
    const program = new Program("test/programs/idle");
    vi.unstubAllEnvs();
    const look = (): Starting => ({
      worker: readPid(pidFile),
      files: fs.readdirSync(program.temporary, { recursive: true, encoding: "utf8" }),
    });
    await expect.poll(() => look().worker, { timeout: 60_000 }).toBeDefined();
    program.kill("SIGSTOP", "program"); // so that it does not connect
    await expect.poll(() => isTime(look()), { timeout: 60_000 }).toBe(true);
    const { worker } = look();
    program.kill("SIGKILL", "program");
    await program.exited();
    await program.expectNothingLeft(worker);
    fs.rmSync(folder, { recursive: true });
  });

  test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
    "that gets %s from its terminal ends with its worker",
    async (signal) => {
      const program = new Program("test/programs/hang");
      const { worker } = await program.firstLine<{ worker: number }>();
      program.kill(signal, "group");
      expect(await program.exited()).toEqual({ code: null, signal });
      await program.expectNothingLeft(worker);
    },
  );

  test("that drops handles, tensors and views gets their memory back, each once", async () => {
    const program = new Program("test/programs/collect", ["--expose-gc"]);
    const { code } = await program.exited();
    expect(program.stderr).toBe("");
    expect(code).toBe(0);
    const { before, held, after, kept, isAlive } = await program.firstLine<{
      before: { handles: number };
      held: { handles: number };
      after: { handles: number; blocks: number; arena: { blocks: number; used: number } };
      kept: unknown;
      isAlive: boolean;
    }>();
    expect(held.handles).toBeGreaterThan(before.handles);
    expect(after).toMatchObject({ handles: before.handles, blocks: 0, arena: { blocks: 0, used: 0 } });
    expect(kept).toEqual({ view: true, part: true });
    expect(isAlive).toBe(true);
    await program.expectNothingLeft();
  });
});
