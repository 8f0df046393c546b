// How `console.log` shows what is ours: as `toString` does, never by asking the worker.

import { inspect } from "node:util";

/** Makes `inspect` show `target`, or what inherits from it, as the text that `show` gives. */
export function showAs<T extends object>(target: T, show: (this: T) => string): void {
  Object.defineProperty(target, inspect.custom, { value: show });
}
