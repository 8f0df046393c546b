// One set-up at a time in one checkout: a lock file that names its owner, so that a dead owner's lock is seen.

import fs from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { identify, isAlive, parseIdentity } from "./process-identity.mjs";

const POLL_MS = 300;
/** Breaking a stale lock takes microseconds; a breaker older than this was killed while at it. */
const BREAKER_MS = 10_000;

/**
 * Takes the lock, waiting for a living owner.
 * @param {string} file
 * @param {{ onWait?: (pid: number) => void, signal?: AbortSignal }} [options] `onWait` is called once, if it must wait
 * @returns {Promise<() => void>} releases the lock; harmless to call twice
 */
export async function acquireLock(file, { onWait, signal } = {}) {
  fs.mkdirSync(path.dirname(file), { recursive: true });
  const mine = JSON.stringify(identify(process.pid));
  let announced = false;
  while (!tryCreate(file, mine)) {
    const owner = readOwner(file);
    if (owner !== undefined && !isAlive(owner)) {
      breakStale(file);
      continue;
    }
    if (!announced && owner !== undefined) {
      announced = true;
      onWait?.(owner.pid);
    }
    await delay(POLL_MS, undefined, { signal });
  }
  return () => {
    if (readText(file) === mine) fs.rmSync(file, { force: true });
  };
}

/** Creates the lock with its content in one atomic act: a reader never sees an empty lock. */
function tryCreate(file, content) {
  const temporary = `${file}.${process.pid}`;
  fs.writeFileSync(temporary, content);
  try {
    fs.linkSync(temporary, file);
    return true;
  } catch (error) {
    if (error.code === "EEXIST") return false;
    throw error;
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

/** Removes a dead owner's lock. Only the holder of `<file>.break` may, else two waiters could remove each other's lock. */
function breakStale(file) {
  const breaker = `${file}.break`;
  try {
    fs.mkdirSync(breaker);
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
    const stat = fs.statSync(breaker, { throwIfNoEntry: false });
    if (stat !== undefined && Date.now() - stat.mtimeMs > BREAKER_MS)
      fs.rmSync(breaker, { recursive: true, force: true });
    return;
  }
  try {
    const owner = readOwner(file);
    if (owner !== undefined && !isAlive(owner)) fs.rmSync(file, { force: true });
  } finally {
    fs.rmSync(breaker, { recursive: true, force: true });
  }
}

/** The owner named in the lock; undefined once it is gone. */
function readOwner(file) {
  const text = readText(file);
  return text === undefined ? undefined : parseIdentity(text);
}

function readText(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if (error.code === "ENOENT") return undefined;
    throw error;
  }
}
