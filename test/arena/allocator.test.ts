import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { Allocator, BLOCK_ALIGNMENT } from "../../src/arena/allocator.ts";
import { InternalError } from "../../src/errors.ts";

const PAGE = 4096;

test("offsets are aligned and lie in the partition, whatever its bounds", () => {
  const allocator = new Allocator(100, 1000);
  const offsets: number[] = [];
  for (let offset = allocator.allocate(1); offset !== undefined; offset = allocator.allocate(1)) offsets.push(offset);
  expect(offsets[0]).toBe(128);
  expect(offsets).toHaveLength(15);
  expect(offsets.every((offset) => offset % BLOCK_ALIGNMENT === 0 && offset + BLOCK_ALIGNMENT <= 1100)).toBe(true);
});

test("a range of 0 bytes has room of its own", () => {
  const allocator = new Allocator(0, PAGE);
  expect(allocator.allocate(0)).not.toBe(allocator.allocate(0));
});

test("takes the smallest range that fits", () => {
  const allocator = new Allocator(0, PAGE);
  const [large, , small] = [
    allocator.allocate(1024),
    allocator.allocate(64),
    allocator.allocate(128),
    allocator.allocate(64),
  ];
  allocator.free(large ?? -1);
  allocator.free(small ?? -1);
  expect(allocator.allocate(100)).toBe(small);
});

test("gives undefined when nothing fits, and says what would", () => {
  const allocator = new Allocator(0, PAGE);
  allocator.allocate(PAGE - 128);
  expect(allocator.allocate(129)).toBeUndefined();
  expect(allocator.largestFree).toBe(128);
  expect(allocator.allocate(128)).toBe(PAGE - 128);
  expect(allocator.largestFree).toBe(0);
});

test("refuses to take back what it did not give", () => {
  const allocator = new Allocator(0, PAGE);
  const offset = allocator.allocate(10) ?? -1;
  allocator.free(offset);
  expect(() => allocator.free(offset)).toThrow(InternalError);
  expect(() => allocator.free(64)).toThrow(InternalError);
});

describe("whatever is allocated and freed", () => {
  const step = fc.oneof(
    fc.record({ allocate: fc.nat(3 * PAGE) }),
    // Of what is held then: which one goes back.
    fc.record({ free: fc.nat() }),
  );

  test("ranges never overlap, sizes add up, and all comes back as one", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
        const bytes = 16 * PAGE;
        const allocator = new Allocator(PAGE, bytes);
        const held = new Map<number, number>();
        for (const action of steps) {
          if ("allocate" in action) {
            const offset = allocator.allocate(action.allocate);
            const needed = Math.max(BLOCK_ALIGNMENT, Math.ceil(action.allocate / BLOCK_ALIGNMENT) * BLOCK_ALIGNMENT);
            expect(offset === undefined).toBe(needed > largestGap(held, PAGE, bytes));
            if (offset !== undefined) held.set(offset, needed);
          } else {
            const offsets = [...held.keys()];
            const offset = offsets[action.free % offsets.length];
            if (offset === undefined) continue;
            allocator.free(offset);
            held.delete(offset);
          }
          expect(allocator.largestFree).toBe(largestGap(held, PAGE, bytes));
          expect(allocator.count).toBe(held.size);
          expect(allocator.used).toBe([...held.values()].reduce((sum, size) => sum + size, 0));
        }
        for (const offset of held.keys()) allocator.free(offset);
        expect(allocator.largestFree).toBe(bytes);
        expect(allocator.used).toBe(0);
      }),
      { numRuns: 300 },
    );
  });
});

/** Largest gap between ranges; fails if two overlap. */
function largestGap(held: ReadonlyMap<number, number>, base: number, bytes: number): number {
  let largest = 0;
  let end = base;
  for (const [offset, size] of [...held].sort(([a], [b]) => a - b)) {
    expect(offset).toBeGreaterThanOrEqual(end);
    largest = Math.max(largest, offset - end);
    end = offset + size;
  }
  expect(end).toBeLessThanOrEqual(base + bytes);
  return Math.max(largest, base + bytes - end);
}
