// How the tests start real workers.

import { fileURLToPath } from "node:url";
import type { SpawnOptions } from "../../src/client/link.ts";
import { Worker } from "../../src/client/worker.ts";

export const FIXTURES: string = fileURLToPath(new URL("../fixtures/python", import.meta.url));

export const MEBIBYTE = 1024 * 1024;

/** A worker with a small arena that can import the fixture module. */
export function spawnWorker(options: SpawnOptions = {}): Promise<Worker> {
  return Worker.spawn({ arenaBytes: 16 * MEBIBYTE, threads: 1, env: { PYTHONPATH: FIXTURES }, ...options });
}

/** The fixture module (test/fixtures/python/marlin_fixture.py), typed. */
export interface Fixture {
  VERSION: string;
  NUMBERS: readonly unknown[];
  living(): number;
  kind(value: unknown): string;
  fail(message: string): never;
  sleep(seconds: number): string;
  speak(out: string, err: string): null;
  leave(code: number): null;
  threads(): number;
  environment(name: string): string | null;
}
