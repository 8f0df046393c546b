// Two connected transports in one process, for tests and examples. Frames are handed over as they are, uncopied.

import { ConnectionClosedError, InternalError } from "../errors.ts";
import type { Transport } from "../transport.ts";

interface Waiting {
  readonly resolve: (frames: Uint8Array[]) => void;
  readonly reject: (error: Error) => void;
}

class MemoryTransport implements Transport {
  #peer: MemoryTransport | undefined;
  #waiting: Waiting | undefined;
  #closed = false;
  readonly #arrived: Uint8Array[][] = [];

  static pair(): [Transport, Transport] {
    const [left, right] = [new MemoryTransport(), new MemoryTransport()];
    left.#peer = right;
    right.#peer = left;
    return [left, right];
  }

  get closed(): boolean {
    return this.#closed;
  }

  async send(frames: readonly Uint8Array[]): Promise<void> {
    if (this.#closed || this.#peer === undefined) throw new ConnectionClosedError("The transport is closed.");
    this.#peer.#deliver([...frames]);
  }

  receive(): Promise<Uint8Array[]> {
    const frames = this.#arrived.shift();
    if (frames !== undefined) return Promise.resolve(frames);
    if (this.#closed) return Promise.reject(new ConnectionClosedError("The transport is closed."));
    if (this.#waiting !== undefined)
      return Promise.reject(new InternalError("One `receive()` may be pending, got a second."));
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
    });
  }

  close(): void {
    if (this.#closed) return;
    this.#arrived.length = 0;
    this.#end("The transport was closed.");
    if (this.#peer !== undefined) this.#peer.#end("The peer closed the connection.");
  }

  #deliver(frames: Uint8Array[]): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    if (waiting === undefined) this.#arrived.push(frames);
    else waiting.resolve(frames);
  }

  #end(reason: string): void {
    this.#closed = true;
    this.#waiting?.reject(new ConnectionClosedError(reason));
    this.#waiting = undefined;
  }
}

/** Two transports, each the other's peer. */
export function memoryPair(): [Transport, Transport] {
  return MemoryTransport.pair();
}
