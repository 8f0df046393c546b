// The worker's end of a ZeroMQ connection, in this process: a ROUTER socket that talks to its one client.

import { Context, Router } from "zeromq";
import type { Transport } from "../../src/transport.ts";

export class RouterPeer implements Transport {
  closed = false;
  readonly #socket: Router;
  #client: Buffer | undefined;
  #queue: Promise<void> = Promise.resolve();

  constructor() {
    this.#socket = new Router({
      context: new Context({ blocky: false }),
      linger: 1000,
      mandatory: true,
      handover: false,
    });
  }

  async listen(endpoint: string): Promise<string> {
    await this.#socket.bind(endpoint);
    return this.#socket.lastEndpoint ?? endpoint;
  }

  /** Waits for the client's first message, by which a ROUTER learns of it. */
  async meet(): Promise<void> {
    [this.#client] = await this.#socket.receive();
  }

  send(frames: readonly Uint8Array[]): Promise<void> {
    const client = this.#client;
    if (client === undefined) return Promise.reject(new Error("The client has not said anything yet."));
    this.#queue = this.#queue.then(() => this.#socket.send([client, ...frames]));
    return this.#queue;
  }

  async receive(): Promise<Uint8Array[]> {
    const [, ...frames] = await this.#socket.receive();
    return frames;
  }

  close(): void {
    this.closed = true;
    this.#socket.close();
  }
}
