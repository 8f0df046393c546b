// Where a command's words go: text for people, or JSON for machines; never both on one stdout.
// Commands say everything to both sides and do not ask which one listens.

import { type OutputStream, silentProgress, startProgress } from "./progress.ts";

/** What a command writes to; injected, so that tests need no terminal. */
export interface Output {
  readonly isJson: boolean;
  /** Text on stdout as it is; nothing in JSON mode. */
  write(text: string): void;
  /** A line on stdout; nothing in JSON mode. */
  line(text?: string): void;
  /** A value on stdout as one line of JSON; nothing in text mode. */
  json(value: unknown): void;
  /** A line on stderr, in both modes. */
  note(text: string): void;
  /** Shows on stderr that `work` is under way, and how it ended; silent in JSON mode. */
  during<T>(label: string, work: (step: Step) => Promise<T>): Promise<T>;
}

/** What work under way can tell. */
export interface Step {
  /** How far it is; `text` names what it is at, for example a layer. */
  update(done: number, total: number, text?: string): void;
  /** The result in a few words, shown at the end. */
  note(text: string): void;
}

/** Options of {@link createOutput}. */
export interface OutputOptions {
  readonly json: boolean;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
}

/** An output over two streams. */
export function createOutput({ json, stdout, stderr }: OutputOptions): Output {
  const write = (text: string): void => {
    if (!json) stdout.write(text);
  };
  return {
    isJson: json,
    write,
    line: (text = "") => write(`${text}\n`),
    json: (value) => {
      if (json) stdout.write(`${JSON.stringify(value)}\n`);
    },
    note: (text) => {
      stderr.write(`${text}\n`);
    },
    during: async (label, work) => {
      const progress = json ? silentProgress : startProgress(label, stderr);
      let result = "";
      try {
        const value = await work({
          update: progress.update,
          note: (text) => {
            result = text;
          },
        });
        progress.done(result);
        return value;
      } catch (error) {
        progress.fail();
        throw error;
      }
    },
  };
}
