// Times what crossing the language border costs: an empty call, a tensor of 1 MiB and of 64 MiB, a streamed item; ours
// beside a bare ZeroMQ echo, pythonia and node-calls-python, in one run, in interleaved rounds.
// Prints a table, then one JSON line; --json prints the line alone. Raw results go to bench/results/.

import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { arch, cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { marlin, type OurBridge } from "./ours.ts";
import { BENCH_FOLDER, type Bridge, nodeCallsPython, pythonia, zeromqEcho } from "./peers.ts";
import { type Case, type Timing, timeInterleaved } from "./timing.ts";

const MIB = 2 ** 20;
const SIZES = [1 * MIB, 64 * MIB];

const options = readOptions();
const { rounds } = options;
const scale = options.quick ? 0.2 : 1;
const say = (text: string): void => {
  (options.json ? process.stderr : process.stdout).write(`${text}\n`);
};

const missing: string[] = [];
const ours = await marlin();
const python = await ours.python(); // the peers run in the very same one
const bridges: Bridge[] = [ours, await zeromqEcho(python)];
for (const [name, open] of [
  ["pythonia", () => pythonia(python)],
  ["node-calls-python", nodeCallsPython],
] as const) {
  try {
    bridges.push(await open());
  } catch (error) {
    missing.push(`${name}: ${error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error)}`);
  }
}

const timings = await timeInterleaved(allCases(bridges, ours), rounds, (round) => {
  process.stderr.write(`round ${round} of ${rounds}\n`);
});
const growth = await ours.growth(64 * MIB);
for (const bridge of bridges) await bridge.close();

const report = {
  bench: "bridge",
  date: new Date().toISOString(),
  commit: git("rev-parse", "HEAD"),
  dirty: git("status", "--porcelain", "--untracked-files=no") !== "",
  machine: { cpu: cpus()[0]?.model ?? "", cores: cpus().length, memory: totalmem(), kernel: release(), arch: arch() },
  node: process.version,
  rounds,
  unit: "microseconds per operation, median of rounds",
  timings,
  inPlaceOverEmpty: ratio("marlin-torch", "64 MiB in place", "marlin-torch", "empty call"),
  emptyOverZeromq: ratio("marlin-torch", "empty call", "bare ZeroMQ echo", "empty call"),
  workerGrowth64MiB: growth,
  missing,
};
printTable(timings);
say(`\n64 MiB in place / empty call: ${report.inPlaceOverEmpty.toFixed(2)}`);
say(`empty call / bare ZeroMQ echo: ${report.emptyOverZeromq.toFixed(2)}`);
say(
  `worker memory while it holds 64 MiB passed in place: anonymous ${mib(growth.anonymous)}, ` +
    `shared pages mapped ${mib(growth.shared)}`,
);
for (const line of missing) say(`not run: ${line}`);
if (!options.quick) {
  const folder = join(BENCH_FOLDER, "..", "results");
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `bridge-${report.date.slice(0, 10)}.json`);
  writeFileSync(file, `${JSON.stringify(report, undefined, 2)}\n`);
  say(`raw results: bench/results/bridge-${report.date.slice(0, 10)}.json`);
}
process.stdout.write(`${JSON.stringify(report)}\n`);
// pythonia keeps handles of its own open after its exit().
process.exit(0);

function readOptions(): { readonly json: boolean; readonly quick: boolean; readonly rounds: number } {
  try {
    const { values } = parseArgs({
      options: {
        json: { type: "boolean", default: false },
        quick: { type: "boolean", default: false },
        rounds: { type: "string" },
      },
    });
    const count = Number(values.rounds ?? (values.quick ? 3 : 15));
    if (!Number.isSafeInteger(count) || count < 1) {
      throw new Error(`Expected \`--rounds\` to be an integer of at least 1, got ${JSON.stringify(values.rounds)}.`);
    }
    return { json: values.json, quick: values.quick, rounds: count };
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`);
    return process.exit(2);
  }
}

function allCases(all: readonly Bridge[], our: OurBridge): Case[] {
  const cases: Case[] = [];
  const add = (bridge: Bridge, operation: string, count: number, run: (count: number) => Promise<void>): void => {
    cases.push({ bridge: bridge.name, operation, count: Math.max(1, Math.round(count * scale)), run });
  };
  for (const bridge of all) {
    add(bridge, "empty call", 500, (count) => bridge.empty(count));
    add(bridge, "streamed item", 1000, (count) => bridge.stream(count));
    for (const bytes of SIZES) {
      const run = bridge.payload(bytes);
      const operation = `${bytes / MIB} MiB${bridge === our ? " in place" : ""}`;
      if (typeof run === "string") missing.push(`${bridge.name}, ${operation}: ${run}`);
      else if (bridge === our) add(bridge, operation, 500, run);
      else add(bridge, operation, bytes > MIB ? 5 : 20, run);
    }
  }
  for (const bytes of SIZES) add(our, `${bytes / MIB} MiB copied in`, bytes > MIB ? 5 : 50, our.copyIn(bytes));
  return cases;
}

function ratio(bridge: string, operation: string, toBridge: string, toOperation: string): number {
  const find = (name: string, what: string): number =>
    timings.find((one) => one.bridge === name && one.operation === what)?.median ?? Number.NaN;
  return find(bridge, operation) / find(toBridge, toOperation);
}

function printTable(rows: readonly Timing[]): void {
  say(
    `${"operation".padEnd(20)}${"bridge".padEnd(22)}${"median us".padStart(12)}${"lowest".padStart(12)}${"highest".padStart(12)}`,
  );
  for (const row of rows.toSorted((a, b) => a.operation.localeCompare(b.operation))) {
    const numbers = [row.median, row.lowest, row.highest].map((value) => value.toFixed(1).padStart(12)).join("");
    say(`${row.operation.padEnd(20)}${row.bridge.padEnd(22)}${numbers}`);
  }
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`;
}

function git(...args: string[]): string {
  try {
    return execFileSync("git", args, {
      cwd: BENCH_FOLDER,
      encoding: "utf8",
      stdio: ["ignore", "pipe", "ignore"],
    }).trim();
  } catch {
    return "";
  }
}
