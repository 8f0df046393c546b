// Checks of this machine and of Node: nothing of Python.

import fs from "node:fs/promises";
import os from "node:os";
import process from "node:process";
import { formatBytes } from "../format.ts";
import { type Finding, fail, isAtLeast, ok, warn } from "./check.ts";

const OLDEST_NODE = [20, 12];
const GIB = 1024 ** 3;
/** torch with CUDA in .venv takes 6 GiB, without 1 GiB. */
const DISK_FOR_SETUP = 2 * GIB;
/** The arena of a worker and a small model beside it. */
const MEMORY_FOR_WORKER = 2 * GIB;

/** The version of Node. */
export function checkNode(version: string = process.versions.node): Finding {
  return isAtLeast(version, OLDEST_NODE)
    ? ok("node", version)
    : fail("node", version, `install Node ${OLDEST_NODE.join(".")} or newer: https://nodejs.org/`);
}

/** That the native part of a package loads in this Node. */
export async function checkNativeModule(name: string, load: () => Promise<unknown>): Promise<Finding> {
  try {
    await load();
    return ok(name, "native module loads");
  } catch (error) {
    const reason = error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
    return fail(name, reason, `npm rebuild ${name}; if install scripts are blocked, allow ${name}'s`);
  }
}

/**
 * Room for the shared memory between this process and its worker. It is anonymous (memfd), so what counts is memory,
 * and the limit of a container, not the size of /dev/shm.
 */
export function checkSharedMemory(limit: number = process.constrainedMemory(), total: number = os.totalmem()): Finding {
  // 0 or an absurd number says that there is no limit.
  const available = limit > 0 && limit < total ? limit : total;
  const found = `${formatBytes(available)} of memory`;
  return available >= MEMORY_FOR_WORKER
    ? ok("shared memory", found)
    : warn("shared memory", found, "give the container more memory, or Worker.spawn a smaller `arenaBytes`");
}

/** Free disk where the package lies. */
export async function checkDisk(folder: string): Promise<Finding> {
  const { bavail, bsize } = await fs.statfs(folder);
  const found = `${formatBytes(bavail * bsize)} free`;
  return bavail * bsize >= DISK_FOR_SETUP
    ? ok("disk", found)
    : warn("disk", found, "free some: set-up needs 2 GB for a CPU torch, 8 GB for one with CUDA");
}
