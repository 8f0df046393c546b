import { expect, test } from "vitest";
import { runProgram } from "../../src/cli/program.ts";
import { VERSION } from "../../src/client/version.ts";
import { captureStreams } from "./streams.ts";

const never = new AbortController().signal;

test("--help lists every command and the exit codes, and succeeds", async () => {
  const streams = captureStreams();
  expect(await runProgram(["--help"], streams, never)).toBe(0);
  for (const name of ["demo", "run", "quantize", "inspect", "doctor", "bench"]) expect(streams.out()).toContain(name);
  expect(streams.out()).toContain("Exit codes: 0 done; 1 failed");
});

test.each(["demo", "run", "quantize", "inspect", "doctor", "bench"])(
  "%s explains itself, and has --json",
  async (name) => {
    const streams = captureStreams();
    expect(await runProgram([name, "--help"], streams, never)).toBe(0);
    expect(streams.out()).toContain("--json");
  },
);

test.each([
  ["an unknown command", ["frob"], "unknown command 'frob'"],
  ["an unknown option", ["demo", "--frob"], "unknown option '--frob'"],
  ["a missing argument", ["run", "model"], "missing required argument 'prompt'"],
  ["a missing option", ["quantize", "model"], "required option '--out <folder>' not specified"],
  ["a number that is none", ["demo", "--max-new-tokens", "many"], 'Expected an integer of at least 1, got "many".'],
  ["a dtype that is none", ["run", "m", "p", "--dtype", "int3"], "Allowed choices are float32, bfloat16, float16"],
  ["a group size that is none", ["demo", "--group-size", "5"], 'Expected one of 32, 64, 128, -1, got "5".'],
  ["bits that are none", ["run", "m", "p", "--bits", "5"], 'Expected 4 or 8, got "5".'],
  ["bits without kernels", ["quantize", "m", "--out", "o", "--bits", "8.0"], 'Expected 4 or 8, got "8.0".'],
  ["an activation that is none", ["run", "m", "p", "--activation", "x"], "choices are auto, int16, bfloat16, int8"],
  ["an empty stop text", ["run", "m", "p", "--stop", ""], "Expected a text, got an empty one."],
  ["an empty prompt", ["run", "m", ""], "Expected a prompt, got an empty text."],
  ["an unknown benchmark", ["bench", "frob"], 'Expected a benchmark of linear, decode, bridge, got "frob".'],
])("%s is a wrong command line: code 2, and a sentence on stderr", async (_, args, message) => {
  const streams = captureStreams();
  expect(await runProgram(args, streams, never)).toBe(2);
  expect(streams.err()).toContain(message);
  expect(streams.out()).toBe("");
});

test("--version is the package's", async () => {
  const streams = captureStreams();
  expect(await runProgram(["--version"], streams, never)).toBe(0);
  expect(streams.out()).toBe(`${VERSION}\n`);
});

test("with --json what the parser refuses is a document without the parser's own label", async () => {
  const streams = captureStreams();
  expect(await runProgram(["demo", "--json", "--frob"], streams, never)).toBe(2);
  expect(JSON.parse(streams.out())).toMatchObject({ error: { code: "usage", message: "unknown option '--frob'" } });
});

test.each([["doctor"], ["bench", "linear"], ["bench", "decode"], ["bench", "bridge"]])(
  "%s %s that was interrupted says so, and not what it did not find",
  async (...args) => {
    const streams = captureStreams();
    expect(await runProgram([...args, "--json"], streams, AbortSignal.abort())).toBe(130);
    expect(JSON.parse(streams.out())).toMatchObject({ error: { code: "cancelled" } });
  },
);

test.each(["", "--json"])("a benchmark in a Python that does not exist is one sentence %s", async (flag) => {
  const streams = captureStreams();
  const args = ["bench", "linear", "--python", "/no/such/python", flag].filter((arg) => arg !== "");
  expect(await runProgram(args, streams, never)).toBe(1);
  expect(streams.err()).toBe(
    "marlin: `--python` must be a Python that runs, got /no/such/python. [invalid_argument]\n",
  );
  expect(streams.out() !== "").toBe(flag === "--json");
});

test("with --json a benchmark that fails is a document, and its exit code stays", async () => {
  const streams = captureStreams();
  expect(await runProgram(["bench", "linear", "--json", "--", "--frob"], streams, never)).toBe(2);
  expect(JSON.parse(streams.out())).toMatchObject({ error: { code: "usage" } });
});

test("with --json a wrong command line is a document, too", async () => {
  const streams = captureStreams();
  expect(await runProgram(["run", "m", "", "--json"], streams, never)).toBe(2);
  expect(JSON.parse(streams.out())).toEqual({
    error: { code: "usage", message: "Expected a prompt, got an empty text.", details: {} },
  });
});

test("a prompt of - is read from standard input", async () => {
  const streams = captureStreams("");
  expect(await runProgram(["run", "m", "-"], streams, never)).toBe(2);
  expect(streams.err()).toContain("Expected a prompt, got an empty text.");
});

test("quantize refuses a folder with files in it before it starts anything", async () => {
  const streams = captureStreams();
  expect(await runProgram(["quantize", "m", "--out", "src"], streams, never)).toBe(2);
  expect(streams.err()).toMatch(/^marlin: Expected `--out` to be a new or empty folder, got src .* \[usage\]\n$/);
});

test.each(["package.json", "package.json/below/it"])("quantize refuses %s, which is no folder", async (out) => {
  const streams = captureStreams();
  expect(await runProgram(["quantize", "m", "--out", out, "--overwrite"], streams, never)).toBe(2);
  expect(streams.err()).toMatch(/got package\.json.*: .*\/package\.json is none\. \[usage\]\n$/);
});

test("a Python that cannot start a worker is one sentence with a code; --verbose says where it came from", async () => {
  const short = captureStreams();
  expect(await runProgram(["inspect", "m", "--python", "/no/such/python"], short, never)).toBe(1);
  const lines = short.err().trimEnd().split("\n");
  expect(lines.at(-1)).toMatch(/^marlin: .*\/no\/such\/python.* \[worker_start_failed\]$/);
  const long = captureStreams();
  await runProgram(["inspect", "m", "--python", "/no/such/python", "--verbose"], long, never);
  expect(long.err()).toContain("    at ");
});
