// One block of the client's partition, and who still refers to it.

import { InternalError } from "../errors.ts";

/**
 * Memory that the client owns. It is freed when the client has dropped it and the worker has given back every mention of
 * it; from then on its id may stand for another block, of the next generation.
 */
export class Block {
  readonly id: number;
  readonly generation: number;
  /** From the start of the arena, in bytes. */
  readonly offset: number;
  readonly bytes: number;
  readonly #free: () => void;
  #foreignReferences = 0;
  #holders = 0;
  #isDropped = false;

  /** @param free - Called once, when nobody refers to the block any more. */
  constructor(id: number, generation: number, offset: number, bytes: number, free: () => void) {
    this.id = id;
    this.generation = generation;
    this.offset = offset;
    this.bytes = bytes;
    this.#free = free;
  }

  /** References that the worker holds. */
  get foreignReferences(): number {
    return this.#foreignReferences;
  }

  /** Counts one mention of the block in a message to the worker. */
  addForeignReference(): void {
    if (this.#isDropped && this.#holders === 0) {
      throw new InternalError(`Block ${this.id} was dropped before it was mentioned.`);
    }
    this.#foreignReferences++;
  }

  /** Counts what the worker gave back. */
  removeForeignReferences(count: number): void {
    if (count > this.#foreignReferences) {
      throw new InternalError(`Block ${this.id} has ${this.#foreignReferences} foreign references, not ${count}.`);
    }
    this.#foreignReferences -= count;
    this.#freeIfUnused();
  }

  /**
   * Keeps the block for a second tensor of the client over it, which the worker named. Returns what ends that; it may be
   * called twice.
   */
  hold(): () => void {
    this.#holders++;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holders--;
      this.#freeIfUnused();
    };
  }

  /** The client gives up the block; typed arrays over it must not be used any more. May be called twice. */
  drop(): void {
    if (this.#isDropped) return;
    this.#isDropped = true;
    this.#freeIfUnused();
  }

  #freeIfUnused(): void {
    if (this.#isDropped && this.#holders === 0 && this.#foreignReferences === 0) this.#free();
  }
}
