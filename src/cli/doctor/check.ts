// One check of `marlin doctor`: what was found, and what to do if it is not right.

/** The result of a check. `skip`: what it needs is itself missing. */
export interface Finding {
  readonly name: string;
  readonly status: "ok" | "warn" | "fail" | "skip";
  /** What was found, in a few words. */
  readonly found: string;
  /** What to do; there unless the status is ok or skip. */
  readonly advice?: string;
}

/** A finding that needs nothing. */
export function ok(name: string, found: string): Finding {
  return { name, status: "ok", found };
}

/** Something that works less well than it could. */
export function warn(name: string, found: string, advice: string): Finding {
  return { name, status: "warn", found, advice };
}

/** Something that must be repaired. */
export function fail(name: string, found: string, advice: string): Finding {
  return { name, status: "fail", found, advice };
}

/** A check that had nothing to look at. */
export function skip(name: string, needs: string): Finding {
  return { name, status: "skip", found: `needs ${needs}` };
}

/** True if `version` (`2.10.1+cu128`) is at least `oldest`, number by number. */
export function isAtLeast(version: string, oldest: readonly number[]): boolean {
  const numbers = version.split(/[^\d]+/).map(Number);
  for (const [index, wanted] of oldest.entries()) {
    const difference = (numbers[index] ?? 0) - wanted;
    if (difference !== 0) return difference > 0;
  }
  return true;
}
