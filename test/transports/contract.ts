// What every transport must do. A test file calls `testTransport` with a way to make a connected pair.

import { afterEach, describe, expect, test } from "vitest";
import { ConnectionClosedError, InternalError } from "../../src/errors.ts";
import type { Transport } from "../../src/transport.ts";

const text = (value: string): Uint8Array => new TextEncoder().encode(value);
const read = (frames: readonly Uint8Array[]): string[] => frames.map((frame) => new TextDecoder().decode(frame));

function isSame(left: readonly Uint8Array[], right: readonly Uint8Array[]): boolean {
  return left.length === right.length && left.every((frame, i) => Buffer.compare(frame, right[i] ?? text("?")) === 0);
}

/** A connected pair: the transport under test, and whatever speaks for its peer. */
export interface Pair {
  readonly transport: Transport;
  readonly peer: Transport;
}

export function testTransport(name: string, connect: () => Promise<Pair>): void {
  const pairs: Pair[] = [];
  const make = async (): Promise<Pair> => {
    const pair = await connect();
    pairs.push(pair);
    return pair;
  };

  afterEach(() => {
    for (const { transport, peer } of pairs.splice(0)) {
      transport.close();
      peer.close();
    }
  });

  describe(`${name} as a transport`, () => {
    test("carries messages both ways, whole: empty frames, many frames, large frames", async () => {
      const { transport, peer } = await make();
      const large = new Uint8Array(3 * 1024 * 1024).map((_, i) => i % 251);
      for (const message of [
        [text("one")],
        [text(""), text("b"), text("")],
        new Array(65).fill(text("x")),
        [text("l"), large],
      ]) {
        await transport.send(message);
        expect(isSame(await peer.receive(), message)).toBe(true);
        await peer.send(message);
        expect(isSame(await transport.receive(), message)).toBe(true);
      }
    });

    test("keeps the order of messages that are sent without waiting", async () => {
      const { transport, peer } = await make();
      const count = 3000;
      const sent = Promise.all(Array.from({ length: count }, (_, i) => transport.send([text(`${i}`)])));
      for (let i = 0; i < count; i++) expect(read(await peer.receive())).toEqual([`${i}`]);
      await sent;
    });

    test("keeps what arrives while nobody receives", async () => {
      const { transport, peer } = await make();
      for (const word of ["a", "b", "c"]) await peer.send([text(word)]);
      for (const word of ["a", "b", "c"]) expect(read(await transport.receive())).toEqual([word]);
    });

    test("sends the frames of a list that the caller then empties", async () => {
      const { transport, peer } = await make();
      const frames = [text("kept"), text("too")];
      const sent = transport.send(frames);
      frames.length = 0;
      await sent;
      expect(read(await peer.receive())).toEqual(["kept", "too"]);
    });

    test("takes one receive at a time", async () => {
      const { transport, peer } = await make();
      const first = transport.receive();
      await expect(transport.receive()).rejects.toThrow(InternalError);
      await peer.send([text("for the first")]);
      expect(read(await first)).toEqual(["for the first"]);
    });

    test("close fails a pending receive, and everything after it", async () => {
      const { transport } = await make();
      expect(transport.closed).toBe(false);
      const pending = transport.receive();
      const failed = expect(pending).rejects.toThrow(ConnectionClosedError);
      transport.close();
      transport.close();
      await failed;
      expect(transport.closed).toBe(true);
      await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
      await expect(transport.send([text("late")])).rejects.toThrow(ConnectionClosedError);
    });

    test("what the peer said last is received before its end is", async () => {
      const { transport, peer } = await make();
      for (const word of ["one", "two", "bye"]) await peer.send([text(word)]);
      peer.close();
      for (const word of ["one", "two", "bye"]) expect(read(await transport.receive())).toEqual([word]);
      await expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
      expect(transport.closed).toBe(true);
      await expect(transport.send([text("late")])).rejects.toThrow(ConnectionClosedError);
    });

    test("the end of the peer fails a receive that waits", async () => {
      const { transport, peer } = await make();
      const failed = expect(transport.receive()).rejects.toThrow(ConnectionClosedError);
      peer.close();
      await failed;
      expect(transport.closed).toBe(true);
    });
  });
}
