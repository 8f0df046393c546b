// Where in the program a call was made. An error that arrives later is created in the receive loop, whose stack tells
// the program nothing; it gets the stack of the call instead, from the first frame that is not ours.

import { fileURLToPath } from "node:url";

/** The stack of a call; V8 formats it only when it is read. */
export interface CallSite {
  readonly stack?: string;
}

/** Frames of ours that may lie between the program and a call; captured beyond the limit that the program set. */
const OWN_FRAMES = 12;
const OWN_FOLDER = fileURLToPath(new URL("..", import.meta.url));
const OWN_URL = new URL("..", import.meta.url).href;

/** Captures the stack of the caller. */
export function captureCallSite(): CallSite {
  const site: CallSite = {};
  const limit = Error.stackTraceLimit;
  Error.stackTraceLimit = limit + OWN_FRAMES;
  Error.captureStackTrace(site, captureCallSite);
  Error.stackTraceLimit = limit;
  return site;
}

/** Gives `error` the program's frames of `site` under its own first line, and returns it. */
export function atCallSite<E extends Error>(error: E, site: CallSite): E {
  const frames = site.stack?.split("\n").filter((line) => line.startsWith("    at ") && !isOwn(line));
  if (frames !== undefined && frames.length > 0) {
    error.stack = [`${error.name}: ${error.message}`, ...frames].join("\n");
  }
  return error;
}

function isOwn(frame: string): boolean {
  return frame.includes(OWN_FOLDER) || frame.includes(OWN_URL);
}
