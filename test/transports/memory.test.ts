import { expect, test } from "vitest";
import { memoryPair } from "../../src/transports/memory.ts";
import { testTransport } from "./contract.ts";

testTransport("memory", async () => {
  const [transport, peer] = memoryPair();
  return { transport, peer };
});

test("frames are handed over as they are", async () => {
  const [left, right] = memoryPair();
  const frame = new Uint8Array(3);
  await left.send([frame]);
  expect((await right.receive())[0]).toBe(frame);
});
