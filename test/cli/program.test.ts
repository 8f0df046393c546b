import { expect, test } from "vitest";
import { runProgram } from "../../src/cli/program.ts";
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
  ["an empty prompt", ["run", "m", ""], "Expected a prompt, got an empty text."],
  ["an unknown benchmark", ["bench", "frob"], 'Expected a benchmark of linear, bridge, got "frob".'],
])("%s is a wrong command line: code 2, and a sentence on stderr", async (_, args, message) => {
  const streams = captureStreams();
  expect(await runProgram(args, streams, never)).toBe(2);
  expect(streams.err()).toContain(message);
  expect(streams.out()).toBe("");
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

test("a Python that cannot start a worker is one sentence with a code; --verbose says where it came from", async () => {
  const short = captureStreams();
  expect(await runProgram(["inspect", "m", "--python", "/no/such/python"], short, never)).toBe(1);
  const lines = short.err().trimEnd().split("\n");
  expect(lines.at(-1)).toMatch(/^marlin: .*\/no\/such\/python.* \[worker_start_failed\]$/);
  const long = captureStreams();
  await runProgram(["inspect", "m", "--python", "/no/such/python", "--verbose"], long, never);
  expect(long.err()).toContain("    at ");
});
