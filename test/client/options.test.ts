import { describe, expect, test } from "vitest";
import { checkOptions, count, describe as describeValue, flag, text } from "../../src/client/options.ts";
import { InvalidArgumentError } from "../../src/errors.ts";

const rules = { path: text, threads: count, verbose: flag };

describe("checkOptions", () => {
  test("accepts what the rules accept, and undefined for all", () => {
    expect(() => checkOptions({ path: "a", threads: 2, verbose: undefined }, rules, "start")).not.toThrow();
  });

  test.each([
    [{ thread: 2 }, "`start` has no option `thread`; it has `path`, `threads`, `verbose`."],
    [{ toString: "x" }, "`start` has no option `toString`; it has `path`, `threads`, `verbose`."],
    [{ threads: 0 }, "`threads` must be a positive integer, got 0."],
    [{ threads: "2" }, '`threads` must be a positive integer, got "2".'],
    [{ path: "" }, '`path` must be a non-empty string, got "".'],
    [{ verbose: 1 }, "`verbose` must be a boolean, got 1."],
    [[], "The options of `start` must be an object, got an array of 0."],
  ])("refuses %j with a sentence", (options, message) => {
    expect(() => checkOptions(options, rules, "start")).toThrow(new InvalidArgumentError(message));
  });
});

test("an error shows values briefly", () => {
  expect([null, "x".repeat(50), Symbol("s"), () => {}, new Map(), 3n].map(describeValue)).toEqual([
    "null",
    "a string of 50 characters",
    "a symbol",
    "a function",
    "an object of class Map",
    "3",
  ]);
});
