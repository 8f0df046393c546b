// Runs compiled programs (test/build.ts) in processes of their own, and watches what they leave.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { expect } from "vitest";

const BUILD = fileURLToPath(new URL("../../build/programs", import.meta.url));

/** A program that runs, with a temporary folder of its own. */
export class Program {
  readonly child: ChildProcess;
  /** Where its temporary files go. */
  readonly temporary: string;
  readonly #exited: Promise<unknown[]>;
  stdout = "";
  stderr = "";

  /** `file` from the root of the repository, without extension: `examples/01-hello`. */
  constructor(file: string, nodeOptions: readonly string[] = []) {
    this.temporary = fs.mkdtempSync(path.join(os.tmpdir(), "marlin-program-"));
    this.child = spawn(process.execPath, [...nodeOptions, path.join(BUILD, `${file}.js`)], {
      env: { ...process.env, TMPDIR: this.temporary },
      // A process group of its own, as a terminal's job has: a test can signal all of it.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#exited = once(this.child, "close");
    this.child.stdout?.on("data", (chunk: Buffer) => (this.stdout += chunk.toString()));
    this.child.stderr?.on("data", (chunk: Buffer) => (this.stderr += chunk.toString()));
  }

  /** The first line that the program prints, which is JSON. */
  async firstLine<T>(): Promise<T> {
    await expect.poll(() => this.stdout.includes("\n") || this.child.exitCode !== null, { timeout: 60_000 }).toBe(true);
    const line = this.stdout.split("\n")[0] ?? "";
    if (line === "") throw new Error(`The program printed nothing. Its stderr:\n${this.stderr}`);
    return JSON.parse(line);
  }

  /** Signals the program alone, or its whole process group as a terminal does. */
  kill(signal: NodeJS.Signals, whom: "program" | "group"): void {
    const { pid } = this.child;
    if (pid === undefined) throw new Error("The program did not start.");
    process.kill(whom === "group" ? -pid : pid, signal);
  }

  /** How the program ended. */
  async exited(): Promise<{ code: number | null; signal: string | null }> {
    await this.#exited;
    return { code: this.child.exitCode, signal: this.child.signalCode };
  }

  /** Passes if the program, which has ended, left no files, once its worker is gone. Removes the temporary folder. */
  async expectNothingLeft(worker?: number): Promise<void> {
    if (worker !== undefined) await expect.poll(() => isRunning(worker), { timeout: 30_000 }).toBe(false);
    expect(fs.readdirSync(this.temporary)).toEqual([]);
    if (fs.existsSync("/dev/shm"))
      expect(fs.readdirSync("/dev/shm").filter((name) => /marlin/i.test(name))).toEqual([]);
    fs.rmSync(this.temporary, { recursive: true });
  }
}

/** True while the process runs; one that has ended and was not waited for yet counts as gone. */
export function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch {
    return false;
  }
  const status = `/proc/${pid}/stat`;
  if (!fs.existsSync("/proc/self/stat")) return true;
  try {
    return !/\) [ZX] /.test(fs.readFileSync(status, "utf8"));
  } catch {
    return false;
  }
}
