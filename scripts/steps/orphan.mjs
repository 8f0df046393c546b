// The command that a step runs is noted in a file, so that a start can end what a killed one left running:
// two pips in one .venv would corrupt it.

import fs from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { STATE } from "../setup/paths.mjs";
import { identify, isAlive, parseIdentity } from "../setup/process-identity.mjs";

/** The note of set-up. Tests keep their own, so that they cannot end a set-up under way. */
export const NOTE = path.join(STATE, "running.json");
const POLL_MS = 20;

/** Notes a child that leads a process group of its own. Call `forgetChild` when it ended. */
export function noteChild(pid, note = NOTE) {
  fs.mkdirSync(path.dirname(note), { recursive: true });
  fs.writeFileSync(note, JSON.stringify(identify(pid)));
}

export function forgetChild(note = NOTE) {
  fs.rmSync(note, { force: true });
}

/** Ends the noted child and its group, if it is still running. Only the holder of the set-up lock may call this. */
export async function endOrphan(note = NOTE) {
  if (!fs.existsSync(note)) return;
  const orphan = parseIdentity(fs.readFileSync(note, "utf8"));
  if (isAlive(orphan)) {
    killGroup(orphan.pid, "SIGKILL");
    while (isAlive(orphan)) await delay(POLL_MS);
  }
  forgetChild(note);
}

/** Sends a signal to a process group; one that is gone already is no error. */
export function killGroup(leader, signal) {
  try {
    process.kill(-leader, signal);
  } catch (error) {
    if (error.code !== "ESRCH") throw error;
  }
}
