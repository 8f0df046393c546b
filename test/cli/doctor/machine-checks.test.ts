import { expect, test } from "vitest";
import { checkDisk, checkNativeModule, checkNode, checkSharedMemory } from "../../../src/cli/doctor/machine-checks.ts";

const GIB = 1024 ** 3;

test("an old Node fails with what to install", () => {
  expect(checkNode("20.12.0").status).toBe("ok");
  expect(checkNode("18.20.4")).toMatchObject({ status: "fail", advice: expect.stringContaining("20.12") });
});

test("a native module that does not load fails with its reason", async () => {
  expect((await checkNativeModule("zeromq", async () => ({}))).status).toBe("ok");
  const broken = await checkNativeModule("zeromq", async () => {
    throw new Error("no native build\nfor this system");
  });
  expect(broken).toMatchObject({
    status: "fail",
    found: "no native build",
    advice: expect.stringContaining("npm rebuild zeromq"),
  });
});

test("the limit of a container counts, where there is one", () => {
  expect(checkSharedMemory(0, 16 * GIB)).toMatchObject({ status: "ok", found: "16.0 GiB of memory" });
  expect(checkSharedMemory(2 ** 63, 16 * GIB).status).toBe("ok");
  expect(checkSharedMemory(GIB, 16 * GIB)).toMatchObject({ status: "warn", found: "1.0 GiB of memory" });
});

test("the disk of an existing folder is measured", async () => {
  expect((await checkDisk(".")).found).toMatch(/free$/);
});
