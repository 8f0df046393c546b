import { expect, test } from "vitest";
import { fromFields, toCamelCase, toKwargs, toSnakeCase } from "../../src/client/naming.ts";

test.each([
  ["maxNewTokens", "max_new_tokens"],
  ["topP", "top_p"],
  ["seed", "seed"],
  ["rssBytes", "rss_bytes"],
])("%s and %s are the same option", (camel, snake) => {
  expect(toSnakeCase(camel)).toBe(snake);
  expect(toCamelCase(snake)).toBe(camel);
});

test("keyword arguments leave out what is undefined, and keep what is null", () => {
  expect(toKwargs({ maxNewTokens: 3, seed: undefined, stop: null })).toEqual({ max_new_tokens: 3, stop: null });
});

test("fields of a result become camelCase at every depth; keys that are data stay", () => {
  expect(
    fromFields({
      weight_bytes: 1,
      layers: [{ bytes_before: 2 }],
      "model.layers_0.w": 3,
      __odd: 4,
      bytes: new Uint8Array([5]),
    }),
  ).toEqual({
    weightBytes: 1,
    layers: [{ bytesBefore: 2 }],
    "model.layers_0.w": 3,
    __odd: 4,
    bytes: new Uint8Array([5]),
  });
});
