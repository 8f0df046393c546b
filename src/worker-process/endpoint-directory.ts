// The private folder in which one worker listens. Knows no socket and no process.

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import process from "node:process";
import { WorkerStartError } from "../errors.ts";

const PREFIX = "marlin-";
const SOCKET_NAME = "worker";
/** Letters that `mkdtemp` adds to the prefix. */
const RANDOM_LETTERS = 6;
/** `sun_path` has 108 bytes, the last of them a zero. */
const MAX_PATH_BYTES = 107;

/** Folders that this process still has to remove. */
const made = new Set<string>();

/** A new folder of mode 0700, and the endpoint in it. */
export interface EndpointDirectory {
  readonly endpoint: string;
  /** Removes the folder and what is in it; an established connection does not need it. May be called twice. */
  remove(): void;
}

/**
 * Makes the folder in the first of `parents` where the socket's path is short enough and the folder can be made.
 *
 * @param parents - Default: the system's temporary folder, then the user's runtime folder, then `/tmp`.
 */
export function makeEndpointDirectory(
  parents: readonly string[] = [tmpdir(), process.env.XDG_RUNTIME_DIR ?? "", "/tmp"],
): EndpointDirectory {
  const reasons: string[] = [];
  for (const parent of parents) {
    if (parent === "") continue;
    const length = Buffer.byteLength(path.join(parent, PREFIX, SOCKET_NAME)) + RANDOM_LETTERS;
    if (length > MAX_PATH_BYTES) {
      reasons.push(`${parent} makes a path of ${length} bytes, ${MAX_PATH_BYTES} are possible`);
      continue;
    }
    try {
      // mkdtemp gives the mode 0700 by itself.
      const directory = mkdtempSync(path.join(parent, PREFIX));
      if (made.size === 0) process.once("exit", removeAll);
      made.add(directory);
      return {
        endpoint: `ipc://${path.join(directory, SOCKET_NAME)}`,
        remove: () => removeOne(directory),
      };
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
    }
  }
  throw new WorkerStartError(`No folder for the worker's socket could be made: ${reasons.join("; ")}.`);
}

function removeOne(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
  made.delete(directory);
  if (made.size === 0) process.off("exit", removeAll);
}

/** For a program that ends while its worker is still starting. */
function removeAll(): void {
  for (const directory of made) removeOne(directory);
}
