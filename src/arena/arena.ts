// The shared memory of one worker, seen from the client: its own partition with a table of blocks, and checks of what
// the worker says of the other. Knows no messages. Nothing in the memory itself is ever read to manage it.

import {
  ArenaFullError,
  ConnectionClosedError,
  InvalidArgumentError,
  ProtocolError,
  StaleTensorError,
} from "../errors.ts";
import { Allocator, BLOCK_ALIGNMENT } from "./allocator.ts";
import { Block } from "./block.ts";
import { Mapping } from "./mapping.ts";

/** Sizes of an arena. */
export interface ArenaOptions {
  /** Size of the whole arena in bytes. Default: 256 MiB. */
  readonly bytes?: number | undefined;
  /** Size of the client's partition in bytes; the rest is the worker's. Default: half. */
  readonly clientBytes?: number | undefined;
}

/** What is in use of the client's partition, in bytes; `used` counts padding. */
export interface ArenaStats {
  readonly bytes: number;
  readonly clientBytes: number;
  readonly used: number;
  readonly largestFree: number;
  readonly blocks: number;
}

const DEFAULT_BYTES = 256 * 1024 * 1024;
/** Each partition begins on a page, so that neither side's neighbours share one with the other's. */
const PAGE_BYTES = 4096;

/** Shared memory of `bytes`: `[0, clientBytes)` is ours to allocate from, the rest is the worker's. */
export class Arena {
  readonly bytes: number;
  readonly clientBytes: number;
  readonly #mapping: Mapping;
  readonly #allocator: Allocator;
  /** Blocks by id. A freed id stays with the generation that its next block gets. */
  readonly #blocks: (Block | number)[] = [];
  readonly #freeIds: number[] = [];
  #isClosed = false;

  /**
   * Creates and maps the memory, off the event loop.
   *
   * @throws InvalidArgumentError for impossible sizes, ArenaFullError if the machine has no room, UnsupportedError on a
   *   platform without unnamed shared memory.
   */
  static async create(options: ArenaOptions = {}): Promise<Arena> {
    const { bytes = DEFAULT_BYTES } = options;
    const clientBytes = options.clientBytes ?? Math.floor(bytes / 2 / PAGE_BYTES) * PAGE_BYTES;
    checkPages("bytes", bytes);
    checkPages("clientBytes", clientBytes);
    if (clientBytes >= bytes) {
      throw new InvalidArgumentError(`\`clientBytes\` must be below \`bytes\` = ${bytes}, got ${clientBytes}.`);
    }
    return new Arena(await Mapping.create(bytes), clientBytes);
  }

  private constructor(mapping: Mapping, clientBytes: number) {
    this.#mapping = mapping;
    this.bytes = mapping.bytes;
    this.clientBytes = clientBytes;
    this.#allocator = new Allocator(0, clientBytes);
  }

  /** The descriptor that leads to the memory, for the worker to inherit. */
  get fd(): number {
    return this.#mapping.fd;
  }

  /**
   * A block of `byteLength` bytes in the client's partition; its contents are what was there before.
   *
   * @throws ArenaFullError with `requested`, `largest_free` and `partition` in `details`.
   */
  allocate(byteLength: number): Block {
    if (!Number.isSafeInteger(byteLength) || byteLength < 0) {
      throw new InvalidArgumentError(`\`byteLength\` must be a non-negative integer, got ${byteLength}.`);
    }
    this.#checkOpen();
    const offset = this.#allocator.allocate(byteLength);
    if (offset === undefined) {
      const largest = this.#allocator.largestFree;
      throw new ArenaFullError(
        `The client's partition of the shared memory has no room for ${byteLength} bytes, at most for ${largest}: ` +
          "dispose of tensors, or spawn the worker with larger `arenaBytes`.",
        { details: { requested: byteLength, largest_free: largest, partition: "client" } },
      );
    }
    const id = this.#freeIds.pop() ?? this.#blocks.length;
    const previous = this.#blocks[id];
    const generation = typeof previous === "number" ? previous : 0;
    const block = new Block(id, generation, offset, byteLength, () => this.#free(block));
    this.#blocks[id] = block;
    return block;
  }

  /** A new ArrayBuffer over a range of the arena, of either partition. It stays valid memory for as long as it lives. */
  view(offset: number, bytes: number): ArrayBuffer {
    this.#checkOpen();
    return this.#mapping.view(offset, bytes);
  }

  /** The block that the worker names. @throws StaleTensorError if it was freed. */
  lookup(id: number, generation: number): Block {
    const block = this.#blocks[id];
    if (block instanceof Block && block.generation === generation) return block;
    throw new StaleTensorError(`Block ${id} of generation ${generation} was freed.`, {
      details: { block: id, generation },
    });
  }

  /** Takes back `count` references that the worker held. @throws ProtocolError if it held fewer. */
  releaseForeign(id: number, generation: number, count: number): void {
    const block = this.#blocks[id];
    if (!(block instanceof Block) || block.generation !== generation || count > block.foreignReferences) {
      throw new ProtocolError(
        `The worker gave back ${count} references to block ${id} of generation ${generation}, which it does not hold.`,
      );
    }
    block.removeForeignReferences(count);
  }

  /** @throws ProtocolError unless `[offset, offset + bytes)` lies in the worker's partition, aligned. */
  checkWorkerRange(offset: number, bytes: number): void {
    // Subtractions of numbers within bounds: a sum could round away what is beyond.
    const isInside = offset >= this.clientBytes && offset <= this.bytes && bytes >= 0 && bytes <= this.bytes - offset;
    if (!isInside || offset % BLOCK_ALIGNMENT !== 0) {
      throw new ProtocolError(
        `The worker named ${bytes} bytes at ${offset}, which are not in its partition [${this.clientBytes}, ${this.bytes}).`,
      );
    }
  }

  stats(): ArenaStats {
    const { used, largestFree, count } = this.#allocator;
    return { bytes: this.bytes, clientBytes: this.clientBytes, used, largestFree, blocks: count };
  }

  /** Gives the memory back once no view of it can be reached. May be called twice. */
  close(): void {
    this.#isClosed = true;
    this.#mapping.close();
  }

  #free(block: Block): void {
    this.#allocator.free(block.offset);
    this.#blocks[block.id] = block.generation + 1;
    this.#freeIds.push(block.id);
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new ConnectionClosedError("The shared memory is closed: its worker has ended.");
  }
}

function checkPages(name: string, bytes: number): void {
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % PAGE_BYTES !== 0) {
    throw new InvalidArgumentError(`\`${name}\` must be a positive multiple of ${PAGE_BYTES}, got ${bytes}.`);
  }
}
