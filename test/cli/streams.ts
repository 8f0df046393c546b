// Streams that keep what was written to them, in place of a terminal.

import { Readable, Writable } from "node:stream";
import type { Streams } from "../../src/cli/program.ts";

/** Streams of one command, and what was written so far. */
export interface CapturedStreams extends Streams {
  readonly out: () => string;
  readonly err: () => string;
}

/** `input` is what standard input holds. */
export function captureStreams(input = ""): CapturedStreams {
  const stdout = capture();
  const stderr = capture();
  return {
    stdin: Readable.from([input]),
    stdout: stdout.stream,
    stderr: stderr.stream,
    out: stdout.text,
    err: stderr.text,
  };
}

function capture(): { stream: Writable; text: () => string } {
  let text = "";
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      text += chunk.toString("utf8");
      done();
    },
  });
  return { stream, text: () => text };
}
