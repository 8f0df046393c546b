// Names a process so that it is known again later: its id and its start time, since ids are used again.

import fs from "node:fs";

/** @typedef {{ pid: number, started: string }} Identity */

/** @returns {Identity} */
export function identify(pid) {
  return { pid, started: readStat(pid)?.started ?? "" };
}

/** True while that very process runs; a zombie does not. @param {Identity} identity */
export function isAlive({ pid, started }) {
  if (!Number.isInteger(pid) || pid <= 0) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if (error.code !== "EPERM") return false;
  }
  const stat = readStat(pid);
  return stat === undefined ? started === "" : stat.started === started && stat.state !== "Z";
}

/** Reads an identity out of JSON text; one that cannot be alive if the text is something else. @returns {Identity} */
export function parseIdentity(text) {
  try {
    const { pid, started } = JSON.parse(text);
    return { pid: Number(pid), started: String(started) };
  } catch {
    return { pid: 0, started: "" };
  }
}

/** State, and start in clock ticks since boot (fields 3 and 22 of /proc/PID/stat); undefined where there is no /proc. */
function readStat(pid) {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0], started: fields[19] };
  } catch {
    return undefined;
  }
}
