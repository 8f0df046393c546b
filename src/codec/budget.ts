// What one message may hold, counted the same way for both directions. Knows no bytes of msgpack.

import { MessageTooLargeError } from "../errors.ts";
import type { Limits } from "../protocol.ts";

/** Counts values and nesting of one control frame and throws MessageTooLargeError past a limit. */
export class Budget {
  readonly #limits: Limits;
  #elements = 0;

  constructor(limits: Limits) {
    this.#limits = limits;
  }

  /** Takes `count` more values; called before anything is allocated for them. */
  take(count: number): void {
    this.#elements += count;
    if (this.#elements > this.#limits.max_elements) {
      throw new MessageTooLargeError(
        `The control frame may hold \`max_elements\` = ${this.#limits.max_elements} values, got more.`,
      );
    }
  }

  /** Checks the depth of an array or map; the control map is at depth 1. */
  enter(depth: number): void {
    if (depth > this.#limits.max_depth) {
      throw new MessageTooLargeError(
        `The control frame may nest \`max_depth\` = ${this.#limits.max_depth} arrays and maps, got more.`,
      );
    }
  }
}

/** Checks the number and the sizes of the frames of a message. */
export function checkFrames(frames: readonly Uint8Array[], limits: Limits): void {
  if (frames.length - 1 > limits.max_frames) {
    throw new MessageTooLargeError(
      `A message may have \`max_frames\` = ${limits.max_frames} frames after the first, got ${frames.length - 1}.`,
    );
  }
  for (const [i, frame] of frames.entries()) {
    const name = i === 0 ? "max_control_bytes" : "max_frame_bytes";
    if (frame.byteLength > limits[name]) {
      throw new MessageTooLargeError(
        `Frame ${i} may have \`${name}\` = ${limits[name]} bytes, got ${frame.byteLength}.`,
      );
    }
  }
}
