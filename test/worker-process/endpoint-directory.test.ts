import { existsSync, mkdirSync, mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { WorkerStartError } from "../../src/errors.ts";
import { makeEndpointDirectory } from "../../src/worker-process/endpoint-directory.ts";

let parent = "";

beforeEach(() => {
  parent = mkdtempSync(path.join(tmpdir(), "marlin-test-"));
});

afterEach(() => {
  rmSync(parent, { recursive: true });
});

const folderOf = (endpoint: string): string => path.dirname(endpoint.replace("ipc://", ""));

test("is new, private and removable, twice and with something in it", () => {
  const [left, right] = [makeEndpointDirectory([parent]), makeEndpointDirectory([parent])];
  expect(left.endpoint).not.toBe(right.endpoint);
  const folder = folderOf(left.endpoint);
  expect(path.dirname(folder)).toBe(parent);
  expect(statSync(folder).mode & 0o777).toBe(0o700);
  writeFileSync(path.join(folder, "worker"), "");
  left.remove();
  left.remove();
  expect(existsSync(folder)).toBe(false);
});

test("passes over folders that make the socket's path too long, by bytes, or that do not exist", () => {
  const long = path.join(parent, "ü".repeat(40));
  mkdirSync(long);
  const { endpoint, remove } = makeEndpointDirectory([long, path.join(parent, "missing"), "", parent]);
  expect(path.dirname(folderOf(endpoint))).toBe(parent);
  expect(Buffer.byteLength(endpoint)).toBeLessThanOrEqual("ipc://".length + 107);
  remove();
});

test("a path of exactly 107 bytes is taken, of 108 not", () => {
  const around = path.join(parent, "marlin-123456", "worker").length;
  const fits = path.join(parent, "x".repeat(107 - around - 1));
  mkdirSync(fits);
  const { endpoint, remove } = makeEndpointDirectory([fits]);
  expect(endpoint.length).toBe("ipc://".length + 107);
  remove();
  const over = path.join(parent, "x".repeat(108 - around - 1));
  mkdirSync(over);
  expect(() => makeEndpointDirectory([over])).toThrow(/makes a path of 108 bytes, 107 are possible/);
});

test("says why none could be made", () => {
  expect(() => makeEndpointDirectory([path.join(parent, "missing")])).toThrow(WorkerStartError);
  expect(() => makeEndpointDirectory([path.join(parent, "missing")])).toThrow(/ENOENT/);
});
