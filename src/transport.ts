// What the session needs of a connection to one worker. Knows no message and no socket.

/**
 * Carries messages (lists of frames) to one peer and back: in order, whole or not at all.
 * `test/transports/contract.ts` says in tests what every implementation must do.
 */
export interface Transport {
  /**
   * Hands a message over; resolves once it is queued for good. May be called many times without waiting: the transport
   * keeps the order. It may send the frames without a copy, and read them some time after this has resolved: they must
   * not be changed any more.
   *
   * @throws ConnectionClosedError if the transport is or gets closed, or the peer went away.
   */
  send(frames: readonly Uint8Array[]): Promise<void>;

  /**
   * The next message. One call at a time. While none is pending, the transport does not keep the process alive; what
   * arrives meanwhile waits for the next call.
   *
   * @throws ConnectionClosedError if the transport is or gets closed, or the peer went away and all that it sent is read.
   */
  receive(): Promise<Uint8Array[]>;

  /** Drops the connection and what is queued, and fails every pending `send` and `receive`. May be called twice. */
  close(): void;

  /** True after `close()`, and after the peer was found gone. */
  readonly closed: boolean;
}
