import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { afterEach, beforeEach, expect, test } from "vitest";
import { acquireLock } from "../../../scripts/setup/lock.mjs";

let folder: string;
let file: string;
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), "marlin lock "));
  file = path.join(folder, "setup.lock");
});
afterEach(() => fs.rmSync(folder, { recursive: true }));

test("the lock is free again after it was released, twice is harmless", async () => {
  const release = await acquireLock(file);
  release();
  release();
  expect(fs.readdirSync(folder)).toEqual([]);
  (await acquireLock(file))();
});

test("a second waits for the first, and says for whom", async () => {
  const release = await acquireLock(file);
  const order: string[] = [];
  let announced: (pid: number) => void = () => {};
  const waiting = new Promise<number>((resolve) => {
    announced = resolve;
  });
  const second = acquireLock(file, { onWait: announced }).then((releaseSecond) => {
    order.push("second");
    releaseSecond();
  });
  expect(await waiting).toBe(process.pid);
  order.push("first");
  release();
  await second;
  expect(order).toEqual(["first", "second"]);
});

test("waiting ends when its signal fires", async () => {
  const release = await acquireLock(file);
  const controller = new AbortController();
  const second = acquireLock(file, { signal: controller.signal, onWait: () => controller.abort() });
  await expect(second).rejects.toThrow(/abort/i);
  release();
});

test("the lock of a process that was killed is taken over", async () => {
  const module = pathToFileURL(path.resolve("scripts/setup/lock.mjs")).href;
  const program = `import { acquireLock } from ${JSON.stringify(module)};
    await acquireLock(${JSON.stringify(file)}); process.stdout.write("held"); setInterval(() => {}, 1000);`;
  const owner = spawn(process.execPath, ["--input-type=module", "-e", program], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(owner.stdout, "data");
  owner.kill("SIGKILL");
  await once(owner, "close");
  expect(fs.existsSync(file)).toBe(true);
  (await acquireLock(file, { onWait: () => expect.unreachable("waited for a dead process") }))();
});

test("a process id that another process uses now does not hold the lock", async () => {
  fs.writeFileSync(file, JSON.stringify({ pid: process.pid, started: "1" }));
  (await acquireLock(file))();
});

test("an unreadable lock does not hold forever", async () => {
  fs.writeFileSync(file, "{");
  (await acquireLock(file))();
});

test("many processes that find a stale lock hold it one at a time", () => {
  fs.writeFileSync(file, JSON.stringify({ pid: 2 ** 30, started: "1" }));
  const module = pathToFileURL(path.resolve("scripts/setup/lock.mjs")).href;
  const journal = path.join(folder, "journal");
  const program = `import { acquireLock } from ${JSON.stringify(module)}; import fs from "node:fs";
    const release = await acquireLock(${JSON.stringify(file)});
    fs.appendFileSync(${JSON.stringify(journal)}, "in "); fs.appendFileSync(${JSON.stringify(journal)}, "out ");
    release();`;
  const programFile = path.join(folder, "program.mjs");
  fs.writeFileSync(programFile, program);
  const command = Array.from({ length: 4 }, () => `"${process.execPath}" "${programFile}" &`).join("\n");
  const result = spawnSync("sh", ["-c", `${command}\nwait`], { encoding: "utf8" });
  expect(result.stderr).toBe("");
  expect(fs.readFileSync(journal, "utf8")).toBe("in out ".repeat(4));
});
