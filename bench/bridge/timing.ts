// The one timer of the bridge bench: rounds in which every case runs in turn, so that a noisy minute of the machine
// falls on all of them; medians over the rounds. Knows nothing of bridges.

/** One thing to time: `run` performs `count` operations and resolves when the last has ended. */
export interface Case {
  readonly bridge: string;
  readonly operation: string;
  /** Operations in one round; the time of a round is divided by it. */
  readonly count: number;
  readonly run: (count: number) => Promise<void>;
}

/** What a case took, in microseconds for one operation. */
export interface Timing {
  readonly bridge: string;
  readonly operation: string;
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
  readonly rounds: number;
}

/** Times every case in `rounds` interleaved rounds, after one round that only warms up. */
export async function timeInterleaved(
  cases: readonly Case[],
  rounds: number,
  onRound: (round: number) => void,
): Promise<Timing[]> {
  const samples = new Map<Case, number[]>(cases.map((one) => [one, []]));
  for (let round = 0; round <= rounds; round++) {
    for (const [one, times] of samples) {
      const start = performance.now();
      await one.run(one.count);
      if (round > 0) times.push(((performance.now() - start) * 1000) / one.count);
    }
    onRound(round);
  }
  return [...samples].map(([{ bridge, operation }, times]) => {
    const sorted = times.toSorted((a, b) => a - b);
    return {
      bridge,
      operation,
      median: median(sorted),
      lowest: sorted[0] ?? Number.NaN,
      highest: sorted.at(-1) ?? Number.NaN,
      rounds: sorted.length,
    };
  });
}

function median(sorted: readonly number[]): number {
  const middle = sorted.length / 2;
  const upper = sorted[Math.floor(middle)] ?? Number.NaN;
  return Number.isInteger(middle) ? ((sorted[middle - 1] ?? Number.NaN) + upper) / 2 : upper;
}
