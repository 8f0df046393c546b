// Shows one running thing: a spinner with a bar on a terminal, plain lines elsewhere.

import type { Writable } from "node:stream";
import ora from "ora";
import { formatBar, formatSeconds } from "./format.ts";

const MILLISECONDS = 1000;
/** Plain lines come no more often than this, so that a log stays readable. */
const PLAIN_INTERVAL_SECONDS = 10;

/** Something under way. Exactly one of `done` and `fail` ends it. */
export interface Progress {
  /** How far it is; `text` names what it is at, for example a layer. */
  update(done: number, total: number, text?: string): void;
  /** Ends it well; `note` is the result in a few words. */
  done(note: string): void;
  /** Ends it badly. */
  fail(): void;
}

/** Shows nothing. */
export const silentProgress: Progress = { update: () => {}, done: () => {}, fail: () => {} };

/** A stream that may be a terminal. */
export type OutputStream = Writable & {
  readonly isTTY?: boolean;
  /** Of terminals. False where NO_COLOR asks for none. */
  hasColors?(): boolean;
};

/** Begins to show `label` on `stream`. */
export function startProgress(label: string, stream: OutputStream): Progress {
  return stream.isTTY === true ? startSpinner(label, stream) : startPlain(label, stream);
}

function startSpinner(label: string, stream: OutputStream): Progress {
  const elapsed = stopwatch();
  // ora's own colors know nothing of NO_COLOR.
  const color = stream.hasColors?.() === true ? "cyan" : false;
  // Standard input stays untouched: its raw mode would swallow Ctrl-C.
  const spinner = ora({ text: label, stream, color, discardStdin: false }).start();
  return {
    update: (done, total, text = "") => {
      spinner.text = `${label}  ${formatBar(done, total)}  ${text}`;
    },
    done: (note) => {
      spinner.succeed(endLine(label, elapsed(), note));
    },
    fail: () => {
      spinner.fail(endLine(label, elapsed()));
    },
  };
}

function startPlain(label: string, stream: Writable): Progress {
  const elapsed = stopwatch();
  let shownAt = 0;
  stream.write(`- ${label} ...\n`);
  return {
    update: (done, total, text = "") => {
      if (elapsed() - shownAt < PLAIN_INTERVAL_SECONDS) return;
      shownAt = elapsed();
      stream.write(`  ... ${label}, ${done}/${total} ${text}`.trimEnd().concat("\n"));
    },
    done: (note) => {
      stream.write(`✓ ${endLine(label, elapsed(), note)}\n`);
    },
    fail: () => {
      stream.write(`✗ ${endLine(label, elapsed())}\n`);
    },
  };
}

function endLine(label: string, seconds: number, note = ""): string {
  return `${label}  ${formatSeconds(seconds)}${note === "" ? "" : `  ${note}`}`;
}

/** Seconds since the call. */
function stopwatch(): () => number {
  const began = performance.now();
  return () => (performance.now() - began) / MILLISECONDS;
}
