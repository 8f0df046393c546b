import { Writable } from "node:stream";
import { expect, test, vi } from "vitest";
import { startProgress } from "../../src/cli/progress.ts";

/** What ora asks of a terminal. */
class Terminal extends Writable {
  readonly isTTY = true;
  readonly columns = 40;
  written = "";
  readonly #hasColors: boolean;

  constructor(hasColors: boolean) {
    super();
    this.#hasColors = hasColors;
  }

  hasColors(): boolean {
    return this.#hasColors;
  }

  cursorTo(): void {}

  clearLine(): void {}

  moveCursor(): void {}

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.written += chunk.toString("utf8");
    done();
  }
}

// Color codes begin with ESC [ 3; those that move the cursor do not.
const COLOR = `${String.fromCharCode(27)}[3`;

// What tests write to is no terminal, for which colors would be off anyway; and ora turns its spinner off in CI.
vi.hoisted(() => {
  vi.stubEnv("FORCE_COLOR", "1");
  vi.stubEnv("TERM", "xterm");
  vi.stubEnv("CI", undefined);
});

test.each([true, false])("a spinner has colors where the terminal does, which NO_COLOR decides: %s", (hasColors) => {
  const terminal = new Terminal(hasColors);
  const progress = startProgress("Working", terminal);
  const { written } = terminal;
  progress.done("");
  expect(written).toContain("Working");
  expect(written.includes(COLOR)).toBe(hasColors);
});
