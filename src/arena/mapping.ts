// One unnamed shared memory, mapped into this process; and its lifetime. Knows no blocks.
//
// koffi calls the system's functions, rather than an add-on of our own. Measured on 256 MiB (Node 20, x86-64), koffi
// against a 20-line N-API add-on: mapping 31 ms and 30 ms (the kernel filling in the pages, both), a view of 4 KiB 2.1 us
// and 1.6 us, `TypedArray.set` into warm pages 18.8 GB/s and 19.4 GB/s. So the add-on would win half a microsecond for
// each tensor, and would need a compiler or a prebuilt file on every machine. What koffi lacks is a finalizer on its
// views; the FinalizationRegistry below stands in for it. Neither library's views can be transferred to a worker thread
// (a copy arrives there).

import { closeSync } from "node:fs";
import { freemem } from "node:os";
import process from "node:process";
import { markAsUntransferable } from "node:worker_threads";
import { ArenaFullError, InternalError, UnsupportedError } from "../errors.ts";
import { type Libc, loadLibc, nameOf } from "./libc.ts";

const MAP_FAILED = 2n ** 64n - 1n;
const PROT_READ_WRITE = 3;
const MAP_SHARED = 1;

/** A mapping counts its views: memory that a view shows must stay mapped, whoever closed the mapping. */
interface Lifetime {
  readonly unmap: () => void;
  isClosed: boolean;
  views: number;
}

const collected = new FinalizationRegistry<Lifetime>((lifetime) => {
  lifetime.views--;
  unmapIfUnused(lifetime);
});

function unmapIfUnused(lifetime: Lifetime): void {
  if (lifetime.isClosed && lifetime.views === 0) lifetime.unmap();
}

/** Shared memory without a name: only its file descriptor, handed to a child process, leads to it. */
export class Mapping {
  /** Close-on-exec: pass it in a child's `stdio`. */
  readonly fd: number;
  readonly bytes: number;
  readonly #libc: Libc;
  readonly #address: bigint;
  readonly #lifetime: Lifetime;

  /**
   * Creates and maps `bytes` of zeroed memory, all of it present: later writes neither fault pages in nor run out of
   * memory. The work happens off the event loop.
   *
   * @throws ArenaFullError if the machine has no room, UnsupportedError on a platform without such memory.
   */
  static async create(bytes: number): Promise<Mapping> {
    const libc = await loadLibc();
    const fd = await openMemory(libc, bytes);
    try {
      const address = await libc.mmap(bytes, PROT_READ_WRITE, MAP_SHARED | libc.mapPopulate, fd);
      if (address === MAP_FAILED) throw outOfRoom(bytes, "mmap refused it");
      return new Mapping(libc, fd, bytes, address);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  private constructor(libc: Libc, fd: number, bytes: number, address: bigint) {
    this.#libc = libc;
    this.fd = fd;
    this.bytes = bytes;
    this.#address = address;
    const unmap = (): void => {
      if (libc.munmap(address, bytes) !== 0) throw new InternalError("munmap failed.");
    };
    this.#lifetime = { unmap, isClosed: false, views: 0 };
  }

  /** A new ArrayBuffer over `[offset, offset + bytes)`. */
  view(offset: number, bytes: number): ArrayBuffer {
    if (this.#lifetime.isClosed) throw new InternalError("The mapping is closed.");
    if (offset < 0 || bytes < 0 || offset + bytes > this.bytes) {
      throw new InternalError(
        `A view of ${bytes} bytes at ${offset} is outside of the mapping of ${this.bytes} bytes.`,
      );
    }
    if (bytes === 0) return new ArrayBuffer(0);
    const view = this.#libc.view(this.#address + BigInt(offset), bytes);
    markAsUntransferable(view);
    this.#lifetime.views++;
    collected.register(view, this.#lifetime);
    return view;
  }

  /** Closes the descriptor. The memory stays mapped until no view of it can be reached. May be called twice. */
  close(): void {
    if (this.#lifetime.isClosed) return;
    this.#lifetime.isClosed = true;
    closeSync(this.fd);
    unmapIfUnused(this.#lifetime);
  }
}

async function openMemory(libc: Libc, bytes: number): Promise<number> {
  // The kernel would rather end processes than refuse pages that it has promised, so ask before taking.
  const available = Math.min(freemem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
  if (bytes > available) throw outOfRoom(bytes, `the machine has ${available} bytes available`);
  const fd = libc.createMemory();
  if (fd < 0) throw new UnsupportedError(`Shared memory without a name is not available: ${libc.lastError()}.`);
  const error = await libc.reserve(fd, bytes);
  if (error !== 0) {
    closeSync(fd);
    throw outOfRoom(bytes, nameOf(error));
  }
  if (!libc.seal(fd)) {
    const reason = libc.lastError();
    closeSync(fd);
    throw new UnsupportedError(`The shared memory cannot be sealed: ${reason}.`);
  }
  return fd;
}

function outOfRoom(bytes: number, reason: string): ArenaFullError {
  return new ArenaFullError(`There is no room for \`bytes\` = ${bytes} of shared memory: ${reason}.`, {
    details: { requested: bytes },
  });
}
