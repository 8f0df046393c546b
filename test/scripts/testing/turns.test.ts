import { expect, test } from "vitest";
import { takeTurns } from "../../../scripts/testing/turns.mjs";

test("the first is heard at once, the others in one piece and in their turn", () => {
  const heard: (string | Buffer)[] = [];
  const next = takeTurns((text) => heard.push(text));
  const [a, b, c] = [next(), next(), next()];
  b.write("b1");
  a.write("a1");
  c.write("c1");
  c.end();
  expect(heard).toEqual(["a1"]);
  a.write("a2");
  a.end();
  expect(heard).toEqual(["a1", "a2", "b1"]);
  b.write("b2");
  b.end();
  expect(heard).toEqual(["a1", "a2", "b1", "b2", "c1"]);
  const d = next();
  d.write("d1");
  expect(heard.at(-1)).toBe("d1");
});
