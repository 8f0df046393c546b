import { expect, test } from "vitest";
import { Scope } from "../../src/client/scope.ts";

/** A member that counts how often it was disposed of. */
class Counted {
  disposals = 0;
  dispose(): void {
    this.disposals++;
  }
}

test("frees its members once, except those kept, which the scope around it frees", async () => {
  const outer = new Scope(undefined);
  const inner = new Scope(outer);
  const [member, kept] = [new Counted(), new Counted()];
  inner.add(member);
  inner.add(kept);
  inner.keep(kept);
  await inner.dispose();
  await inner.dispose();
  expect([member.disposals, kept.disposals]).toEqual([1, 0]);
  await outer.dispose();
  expect([member.disposals, kept.disposals]).toEqual([1, 1]);
});

test("does not hold what is made after its end: the scope around it does", async () => {
  const outer = new Scope(undefined);
  const inner = new Scope(outer);
  await inner.dispose();
  const late = new Counted();
  inner.add(late);
  await inner.dispose();
  expect(late.disposals).toBe(0);
  await outer.dispose();
  expect(late.disposals).toBe(1);
});
