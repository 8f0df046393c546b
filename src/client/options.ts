// Checks of option objects: declared once per method, before any work. A key that no rule names is a typing mistake.

import { DTYPES } from "../dtype.ts";
import { InvalidArgumentError } from "../errors.ts";

/** What an option must be. */
export interface Rule {
  /** Follows "must be" in the error. */
  readonly expected: string;
  accepts(value: unknown): boolean;
}

/** Rules by option name; every option may be left out or undefined. */
export type Rules = Readonly<Record<string, Rule>>;

/** Throws `InvalidArgumentError` if `options` has an unknown key or a value that breaks its rule. `where` names the method. */
export function checkOptions(options: object, rules: Rules, where: string): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new InvalidArgumentError(`The options of \`${where}\` must be an object, got ${describe(options)}.`);
  }
  for (const [name, value] of Object.entries(options)) {
    const rule = Object.hasOwn(rules, name) ? rules[name] : undefined;
    if (rule === undefined) {
      const known = Object.keys(rules)
        .map((key) => `\`${key}\``)
        .join(", ");
      throw new InvalidArgumentError(`\`${where}\` has no option \`${name}\`; it has ${known}.`);
    }
    if (value !== undefined) checkArgument(value, rule, name);
  }
}

/** Throws `InvalidArgumentError` if `value` breaks the rule. */
export function checkArgument(value: unknown, rule: Rule, name: string): void {
  if (!rule.accepts(value)) {
    throw new InvalidArgumentError(`\`${name}\` must be ${rule.expected}, got ${describe(value)}.`);
  }
}

export const text: Rule = {
  expected: "a non-empty string",
  accepts: (value) => typeof value === "string" && value !== "",
};

export const texts: Rule = {
  expected: "an array of strings",
  accepts: (value) => Array.isArray(value) && value.every((entry) => typeof entry === "string"),
};

export const flag: Rule = { expected: "a boolean", accepts: (value) => typeof value === "boolean" };

export const count: Rule = {
  expected: "a positive integer",
  accepts: (value) => typeof value === "number" && Number.isSafeInteger(value) && value > 0,
};

/** An integer that Python takes as it is; -1 and 0 have meanings of their own there. */
export const integer: Rule = {
  expected: "an integer",
  accepts: (value) => typeof value === "bigint" || (typeof value === "number" && Number.isSafeInteger(value)),
};

export const nonNegative: Rule = {
  expected: "a number of at least 0",
  accepts: (value) => typeof value === "number" && value >= 0 && Number.isFinite(value),
};

/** Longest delay of a JavaScript timer. */
const MAX_MILLISECONDS = 2 ** 31 - 1;

export const milliseconds: Rule = {
  expected: `a number of milliseconds from 0 to ${MAX_MILLISECONDS}`,
  accepts: (value) => typeof value === "number" && value >= 0 && value <= MAX_MILLISECONDS,
};

/** Sizes of dimensions; how many there may be, and how large together, is checked where they are used. */
export const shape: Rule = {
  expected: "an array of non-negative integers",
  accepts: (value) => Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0),
};

export const callback: Rule = { expected: "a function", accepts: (value) => typeof value === "function" };

export const dtype: Rule = {
  expected: `one of ${DTYPES.join(", ")}`,
  accepts: (value) => DTYPES.some((name) => name === value),
};

/** Variables for the worker's environment; undefined takes one away. */
export const environment: Rule = {
  expected: "an object of strings",
  accepts: (value) =>
    typeof value === "object" &&
    value !== null &&
    Object.values(value).every((entry) => typeof entry === "string" || entry === undefined),
};

/** Any value: another place checks it. */
const unchecked: Rule = { expected: "anything", accepts: () => true };

/** `signal` and `timeout`; the session checks them, with the state of the signal. */
export const callRules: Rules = { signal: unchecked, timeout: unchecked };

/** How an error shows what it got: short, and never a round trip for a proxy. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "string")
    return value.length > 40 ? `a string of ${value.length} characters` : JSON.stringify(value);
  if (typeof value === "number" || typeof value === "boolean" || typeof value === "bigint") return String(value);
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === "function") return "a function";
  if (typeof value === "symbol") return "a symbol";
  return `an object of class ${value.constructor?.name ?? "Object"}`;
}
