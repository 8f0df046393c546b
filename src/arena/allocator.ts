// Hands out ranges of one partition of the arena: offsets and sizes, no memory. Best fit over a sorted list of free
// ranges, which stays short because neighbours are joined when a range comes back.

import { InternalError } from "../errors.ts";

/** Offsets are multiples of this: a cache line, and as much as any kernel asks of an operand (docs/protocol.md). */
export const BLOCK_ALIGNMENT = 64;

interface Range {
  readonly offset: number;
  readonly bytes: number;
}

/** Allocates ranges inside `[base, base + bytes)`. */
export class Allocator {
  /** Bytes handed out, padding included. */
  used = 0;
  /** Sorted by offset; no two touch. */
  readonly #free: Range[] = [];
  readonly #taken = new Map<number, number>();

  /** Both bounds are rounded inwards to the alignment. */
  constructor(base: number, bytes: number) {
    const start = roundUp(base);
    const end = base + bytes - ((base + bytes) % BLOCK_ALIGNMENT);
    if (end > start) this.#free.push({ offset: start, bytes: end - start });
  }

  /** Size of the largest range that can be handed out now. */
  get largestFree(): number {
    return this.#free.reduce((largest, range) => Math.max(largest, range.bytes), 0);
  }

  /** Ranges handed out now. */
  get count(): number {
    return this.#taken.size;
  }

  /** The offset of a range of at least `bytes`, or undefined if none is free. A range of 0 bytes has room of its own. */
  allocate(bytes: number): number | undefined {
    const needed = roundUp(Math.max(bytes, 1));
    let best = -1;
    let bestBytes = Number.POSITIVE_INFINITY;
    for (const [i, range] of this.#free.entries()) {
      if (range.bytes >= needed && range.bytes < bestBytes) {
        best = i;
        bestBytes = range.bytes;
      }
    }
    const range = this.#free[best];
    if (range === undefined) return undefined;
    if (range.bytes === needed) this.#free.splice(best, 1);
    else this.#free[best] = { offset: range.offset + needed, bytes: range.bytes - needed };
    this.#taken.set(range.offset, needed);
    this.used += needed;
    return range.offset;
  }

  /** Takes back the range that `allocate` gave at `offset`. */
  free(offset: number): void {
    const bytes = this.#taken.get(offset);
    if (bytes === undefined) throw new InternalError(`No range was handed out at offset ${offset}.`);
    this.#taken.delete(offset);
    this.used -= bytes;
    const next = this.#firstAfter(offset);
    const before = this.#free[next - 1];
    const after = this.#free[next];
    const joinsBefore = before !== undefined && before.offset + before.bytes === offset;
    const joinsAfter = after !== undefined && offset + bytes === after.offset;
    const start = joinsBefore ? before.offset : offset;
    const end = joinsAfter ? after.offset + after.bytes : offset + bytes;
    const first = joinsBefore ? next - 1 : next;
    const replaced = (joinsBefore ? 1 : 0) + (joinsAfter ? 1 : 0);
    this.#free.splice(first, replaced, { offset: start, bytes: end - start });
  }

  /** Index of the first free range beyond `offset`. */
  #firstAfter(offset: number): number {
    let low = 0;
    let high = this.#free.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const range = this.#free[middle];
      if (range !== undefined && range.offset < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function roundUp(bytes: number): number {
  return Math.ceil(bytes / BLOCK_ALIGNMENT) * BLOCK_ALIGNMENT;
}
