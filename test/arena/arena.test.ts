import { execFileSync, spawnSync } from "node:child_process";
import { readdirSync, readFileSync, readlinkSync } from "node:fs";
import { setImmediate } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterEach, describe, expect, test } from "vitest";
import { Arena, type ArenaOptions } from "../../src/arena/arena.ts";
import {
  ArenaFullError,
  ConnectionClosedError,
  InvalidArgumentError,
  ProtocolError,
  StaleTensorError,
} from "../../src/errors.ts";

const MIB = 1024 * 1024;
const open: Arena[] = [];

async function create(options: ArenaOptions = { bytes: MIB }): Promise<Arena> {
  const arena = await Arena.create(options);
  open.push(arena);
  return arena;
}

afterEach(() => {
  for (const arena of open.splice(0)) arena.close();
});

/** Memory mapped from memfds of this project. */
function mappings(): number {
  return readFileSync("/proc/self/maps", "utf8")
    .split("\n")
    .filter((line) => line.includes("memfd:marlin")).length;
}

function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  runInNewContext("gc")();
}

/** Collects garbage until `isTrue`, since finalizers run when the engine likes; the test's timeout bounds it. */
async function untilCollected(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) {
    collectGarbage();
    await setImmediate();
  }
}

describe("creating", () => {
  test.each<[ArenaOptions, RegExp]>([
    [{ bytes: 0 }, /`bytes` must be a positive multiple of 4096, got 0/],
    [{ bytes: 5000 }, /`bytes`/],
    [{ bytes: -4096 }, /`bytes`/],
    [{ bytes: Number.NaN }, /`bytes`/],
    [{ bytes: 8192, clientBytes: 8192 }, /`clientBytes` must be below `bytes` = 8192, got 8192/],
    [{ bytes: 8192, clientBytes: 100 }, /`clientBytes` must be a positive multiple/],
    [{ bytes: 4096 }, /`clientBytes`/],
  ])("refuses %o", async (options, message) => {
    await expect(Arena.create(options)).rejects.toThrow(InvalidArgumentError);
    await expect(Arena.create(options)).rejects.toThrow(message);
  });

  test("refuses more than the machine has, before it takes any", async () => {
    const error = await Arena.create({ bytes: 2 ** 50 }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(ArenaFullError);
    expect(error).toMatchObject({ details: { requested: 2 ** 50 } });
  });

  test("halves by default, on a page", async () => {
    expect((await create({ bytes: 3 * 4096 })).clientBytes).toBe(4096);
    expect((await create({ bytes: MIB })).clientBytes).toBe(MIB / 2);
    expect((await create({ bytes: MIB, clientBytes: 4096 })).clientBytes).toBe(4096);
  });

  test("leaves the event loop free: timers fire while pages are filled in", async () => {
    let turns = 0;
    let isReady = false;
    const counting = (async () => {
      while (!isReady) {
        turns++;
        await setImmediate();
      }
    })();
    await create({ bytes: 64 * MIB });
    isReady = true;
    await counting;
    expect(turns).toBeGreaterThan(2);
  });

  test("leaves no name behind: neither in /dev/shm nor anywhere else", async () => {
    const before = readdirSync("/dev/shm");
    const arena = await create();
    expect(readdirSync("/dev/shm")).toEqual(before);
    expect(readlinkSync(`/proc/self/fd/${arena.fd}`)).toMatch(/^\/memfd:marlin/);
  });
});

describe("the descriptor", () => {
  const inherit = (arena: Arena, script: string): string =>
    execFileSync("python3", ["-c", script], { stdio: ["ignore", "pipe", "inherit", arena.fd], encoding: "utf8" });

  test("leads a child to the same memory, both ways", async () => {
    const arena = await create();
    const block = arena.allocate(16);
    const view = new Uint8Array(arena.view(block.offset, 16));
    view.fill(7);
    const script = `
import mmap
m = mmap.mmap(3, ${MIB})
print(m[${block.offset}], m[${block.offset + 15}])
m[${block.offset}] = 42
`;
    expect(inherit(arena, script)).toBe("7 7\n");
    expect(view[0]).toBe(42);
  });

  test("cannot be used to resize the memory, which would end us with SIGBUS", async () => {
    const arena = await create();
    const script = `
import os
for size in (0, ${2 * MIB}):
    try:
        os.ftruncate(3, size)
    except PermissionError:
        print("refused")
`;
    expect(inherit(arena, script)).toBe("refused\nrefused\n");
  });

  test("is not inherited by children that are not given it", async () => {
    const arena = await create();
    const list = spawnSync("ls", ["-l", "/proc/self/fd"], { encoding: "utf8" });
    expect(list.stdout).not.toContain("memfd:marlin");
    expect(arena.fd).toBeGreaterThan(2);
  });
});

describe("blocks", () => {
  test("are freed when dropped and given back, in either order", async () => {
    const arena = await create();
    const first = arena.allocate(100);
    first.addForeignReference();
    first.addForeignReference();
    first.drop();
    first.drop();
    expect(arena.stats()).toMatchObject({ used: 128, blocks: 1 });
    arena.releaseForeign(first.id, first.generation, 1);
    expect(arena.stats().blocks).toBe(1);
    arena.releaseForeign(first.id, first.generation, 1);
    expect(arena.stats()).toMatchObject({ used: 0, blocks: 0, largestFree: MIB / 2 });

    const second = arena.allocate(100);
    second.addForeignReference();
    arena.releaseForeign(second.id, second.generation, 1);
    expect(arena.stats().blocks).toBe(1);
    second.drop();
    expect(arena.stats().blocks).toBe(0);
  });

  test("of one id differ in their generation, and a stale one is not found", async () => {
    const arena = await create();
    const first = arena.allocate(8);
    expect(arena.lookup(first.id, first.generation)).toBe(first);
    first.drop();
    expect(() => arena.lookup(first.id, first.generation)).toThrow(StaleTensorError);
    const second = arena.allocate(8);
    expect(second.id).toBe(first.id);
    expect(second.generation).toBe(first.generation + 1);
    expect(() => arena.lookup(first.id, first.generation)).toThrow(StaleTensorError);
    expect(arena.lookup(second.id, second.generation)).toBe(second);
    for (const id of [-1, 1.5, 99, Number.NaN]) expect(() => arena.lookup(id, 0)).toThrow(StaleTensorError);
  });

  test("take back no more references than the worker holds", async () => {
    const arena = await create();
    const block = arena.allocate(8);
    block.addForeignReference();
    expect(() => arena.releaseForeign(block.id, block.generation, 2)).toThrow(ProtocolError);
    expect(() => arena.releaseForeign(block.id, block.generation + 1, 1)).toThrow(ProtocolError);
    expect(() => arena.releaseForeign(block.id + 1, 0, 1)).toThrow(ProtocolError);
    arena.releaseForeign(block.id, block.generation, 1);
    expect(() => arena.releaseForeign(block.id, block.generation, 1)).toThrow(ProtocolError);
  });

  test("run out with an error that says what there is", async () => {
    const arena = await create({ bytes: 2 * MIB, clientBytes: MIB });
    const block = arena.allocate(MIB - 4096);
    const full = (): unknown => arena.allocate(4097);
    expect(full).toThrow(ArenaFullError);
    expect(full).toThrow(
      expect.objectContaining({ details: { requested: 4097, largest_free: 4096, partition: "client" } }),
    );
    block.drop();
    expect(arena.allocate(MIB).bytes).toBe(MIB);
  });

  test("have a size that is a number of bytes", async () => {
    const arena = await create();
    for (const size of [-1, 1.5, Number.NaN, Infinity]) {
      expect(() => arena.allocate(size)).toThrow(InvalidArgumentError);
    }
    expect(arena.view(arena.allocate(0).offset, 0).byteLength).toBe(0);
  });
});

test("the worker may name its own partition only", async () => {
  const arena = await create({ bytes: MIB, clientBytes: 4096 });
  arena.checkWorkerRange(4096, MIB - 4096);
  arena.checkWorkerRange(MIB, 0);
  for (const [offset, bytes] of [
    [0, 64],
    [4032, 128],
    [4096, MIB],
    [MIB - 64, 65],
    [MIB + 64, 0],
    [4100, 4],
    [Number.MAX_SAFE_INTEGER - 63, 64],
    [4096, Number.MAX_SAFE_INTEGER],
  ] as const) {
    expect(() => arena.checkWorkerRange(offset, bytes), `${bytes} at ${offset}`).toThrow(ProtocolError);
  }
});

describe("views", () => {
  test("of one block are buffers of their own over the same memory", async () => {
    const arena = await create();
    const block = arena.allocate(64);
    const [left, right] = [arena.view(block.offset, 64), arena.view(block.offset, 64)];
    expect(left).not.toBe(right);
    expect(left.byteLength).toBe(64);
    new Uint8Array(left)[0] = 9;
    expect(new Uint8Array(right)[0]).toBe(9);
  });

  test("cannot be moved to another thread, where nothing would keep their memory", async () => {
    const arena = await create();
    const view = arena.view(0, 64);
    new Uint8Array(view)[0] = 5;
    const moved = (() => {
      try {
        return structuredClone(view, { transfer: [view] });
      } catch {
        return undefined;
      }
    })();
    // Node 20 copies, later versions refuse.
    if (moved !== undefined) new Uint8Array(moved)[0] = 1;
    expect(new Uint8Array(view)[0]).toBe(5);
  });
});

describe("closing", () => {
  test("unmaps at once what no view shows", async () => {
    await untilCollected(() => mappings() === 0);
    const arena = await create();
    expect(mappings()).toBe(1);
    arena.close();
    arena.close();
    expect(mappings()).toBe(0);
  });

  test("keeps what a view shows, until the view is collected", async () => {
    await untilCollected(() => mappings() === 0);
    const arena = await create();
    const block = arena.allocate(4096);
    await (async () => {
      const array = new Float32Array(arena.view(block.offset, 4096));
      array.fill(3);
      arena.close();
      collectGarbage();
      await setImmediate();
      expect(array[1000]).toBe(3);
      expect(mappings()).toBe(1);
    })();
    await untilCollected(() => mappings() === 0);
  });

  test("ends allocation and new views", async () => {
    const arena = await create();
    arena.close();
    expect(() => arena.allocate(1)).toThrow(ConnectionClosedError);
    expect(() => arena.view(0, 1)).toThrow(ConnectionClosedError);
  });
});

test("a program that holds an arena ends by itself", () => {
  const module = pathToFileURL("dist/arena/arena.js").href;
  const script = `
    import { Arena } from ${JSON.stringify(module)};
    const arena = await Arena.create({ bytes: 1048576 });
    globalThis.view = new Uint8Array(arena.view(0, 64));
    console.log("ready");
  `;
  const child = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: 10_000,
  });
  expect(child).toMatchObject({ status: 0, signal: null, stdout: "ready\n", stderr: "" });
});
