// A prompt comes from the command line, or with `-` from standard input.

import type { Readable } from "node:stream";
import { UsageError } from "./exit.ts";

/** The text of a prompt argument. Throws `UsageError` if it is empty. */
export async function readPrompt(argument: string, stdin: Readable): Promise<string> {
  const text = argument === "-" ? await readAll(stdin) : argument;
  if (text === "") throw new UsageError("Expected a prompt, got an empty text.");
  return text;
}

async function readAll(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}
