// How programs end, and that their workers end with them: each runs in a process of its own.

import { describe, expect, test } from "vitest";
import { Program } from "./programs.ts";

describe("a program", () => {
  test("that has nothing left to do exits by itself, and its worker with it", async () => {
    const program = new Program("test/programs/idle");
    expect(await program.exited()).toEqual({ code: 0, signal: null });
    const { worker, ...seen } = await program.firstLine<{ worker: number }>();
    expect(seen).toEqual({ view: [2, 3, 4], value: 1 });
    expect(program.stdout).not.toContain("never");
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
