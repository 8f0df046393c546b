// Exit codes, and how a failure is told: one sentence with its code, and with --verbose where it came from.

import { MarlinError } from "../errors.ts";

/** The exit codes of every command; `marlin --help` lists them. */
export const ExitCode = {
  ok: 0,
  /** The command failed; the message has the error's code (docs/errors.md). `doctor`: something must be repaired. */
  failed: 1,
  /** The command line was wrong. */
  usage: 2,
  /** Ctrl-C: 128 + SIGINT. */
  interrupted: 130,
  /** 128 + SIGTERM. */
  terminated: 143,
} as const;

/** A wrong command line that the parser could not see, for example an empty prompt. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What `--json` prints for a failure. */
export interface ErrorDocument {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly details: Readonly<Record<string, unknown>>;
    readonly stack?: string;
    readonly traceback?: string;
  };
}

/** The failure for machines. */
export function errorDocument(error: unknown, verbose: boolean): ErrorDocument {
  const { code, message, details } = describe(error);
  const stack = verbose && error instanceof Error && error.stack !== undefined ? { stack: error.stack } : {};
  const traceback =
    verbose && MarlinError.isInstance(error) && error.traceback !== "" ? { traceback: error.traceback } : {};
  return { error: { code, message, details, ...stack, ...traceback } };
}

/** The failure for people. */
export function errorText(error: unknown, verbose: boolean): string {
  const { code, message } = describe(error);
  const lines = [`marlin: ${message} [${code}]`];
  if (verbose && MarlinError.isInstance(error) && error.traceback !== "") lines.push("", error.traceback.trimEnd());
  if (verbose && error instanceof Error && error.stack !== undefined) lines.push("", error.stack);
  return lines.join("\n");
}

function describe(error: unknown): { code: string; message: string; details: Readonly<Record<string, unknown>> } {
  if (MarlinError.isInstance(error)) return { code: error.code, message: error.message, details: error.details };
  if (error instanceof UsageError) return { code: "usage", message: error.message, details: {} };
  return { code: "internal", message: error instanceof Error ? error.message : String(error), details: {} };
}
