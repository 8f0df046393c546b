// What the client gives back to the worker: handle ids and references to the worker's blocks. They are collected and
// travel together, before the next message or, when nothing is sent, at the next turn of the event loop.

import { type BlockRelease, type ReleaseMessage, WireHandle, WireTensor, type WireValue } from "../protocol.ts";

/** Entries of one `release`: far from the worker's limit on elements, where a block takes four and a handle one. */
const MAX_BATCH = 8192;

/** Queue of what is to be given back. */
export class ReleaseQueue {
  readonly #flush: () => void;
  readonly #handles: number[] = [];
  // Keyed by block and generation, so that several views of one block become one entry with a count.
  readonly #blocks = new Map<string, BlockRelease>();
  #scheduled = false;

  /** `flush` is called at the next turn of the event loop after something was added; it takes what is due. */
  constructor(flush: () => void) {
    this.#flush = flush;
  }

  addHandle(id: number): void {
    this.#handles.push(id);
    this.#schedule();
  }

  /** Adds one reference to a block of the worker. */
  addBlock(block: number, generation: number): void {
    const key = `${block}:${generation}`;
    this.#blocks.set(key, [block, generation, (this.#blocks.get(key)?.[2] ?? 0) + 1]);
    this.#schedule();
  }

  /** Adds every handle and block of the worker that `value`, which nobody will read, mentions. */
  addAllOf(value: WireValue): void {
    if (value instanceof WireHandle) this.addHandle(value.id);
    else if (value instanceof WireTensor) {
      const { storage } = value;
      if (storage.kind === "block" && storage.owner === "worker") this.addBlock(storage.block, storage.generation);
    } else if (typeof value === "object" && value !== null && !(value instanceof Uint8Array)) {
      for (const inner of Object.values(value)) this.addAllOf(inner);
    }
  }

  /** Takes what is due as messages, in batches that any worker accepts. */
  *take(): Generator<ReleaseMessage> {
    while (this.#handles.length > 0 || this.#blocks.size > 0) {
      const handles = this.#handles.splice(0, MAX_BATCH);
      const keys = [...this.#blocks.keys()].slice(0, MAX_BATCH);
      const blocks: BlockRelease[] = [];
      for (const key of keys) {
        const entry = this.#blocks.get(key);
        if (entry !== undefined) blocks.push(entry);
        this.#blocks.delete(key);
      }
      yield { type: "release", handles, blocks };
    }
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Not kept alive for it: a process that ends takes its worker, and so all handles, with it.
    setImmediate(() => {
      this.#scheduled = false;
      this.#flush();
    }).unref();
  }
}
