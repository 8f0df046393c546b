// Cuts a stream of bytes into lines of text, with bounds on what is kept. Knows no process.

import { StringDecoder } from "node:string_decoder";

/** Longer lines are cut here: a stream without line ends must not grow without bound. */
const MAX_LINE_CHARACTERS = 8192;

/** Collects chunks and calls `onLine` for every line; a carriage return ends a line too, as progress bars use it. */
export class LineSplitter {
  readonly #decoder = new StringDecoder("utf8");
  readonly #onLine: (line: string) => void;
  #rest = "";

  constructor(onLine: (line: string) => void) {
    this.#onLine = onLine;
  }

  push(chunk: Buffer): void {
    const lines = (this.#rest + this.#decoder.write(chunk)).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#emit(line);
    while (this.#rest.length > MAX_LINE_CHARACTERS) {
      this.#onLine(this.#rest.slice(0, MAX_LINE_CHARACTERS));
      this.#rest = this.#rest.slice(MAX_LINE_CHARACTERS);
    }
  }

  /** The stream ended: what is left is a line as well. */
  end(): void {
    const rest = this.#rest + this.#decoder.end();
    this.#rest = "";
    this.#emit(rest);
  }

  #emit(line: string): void {
    // The empty line between `\r` and a `\n` of the next chunk, and those that progress bars leave, say nothing.
    if (line === "") return;
    for (let start = 0; start < line.length; start += MAX_LINE_CHARACTERS) {
      this.#onLine(line.slice(start, start + MAX_LINE_CHARACTERS));
    }
  }
}

/** Keeps the last `limit` characters of a text. */
export class Tail {
  readonly #limit: number;
  #text = "";

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(text: string): void {
    this.#text += text;
    // Cut at twice the limit, not at every push: the cost of a cut is shared by many pushes.
    if (this.#text.length > 2 * this.#limit) this.#text = this.#text.slice(-this.#limit);
  }

  toString(): string {
    return this.#text.slice(-this.#limit);
  }
}
