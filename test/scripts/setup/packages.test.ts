import fs from "node:fs";
import { expect, test } from "vitest";
import {
  BUILD,
  CUDA_COMPILER,
  comparePackages,
  DEVELOPMENT,
  freeze,
  RUNTIME,
} from "../../../scripts/setup/packages.mjs";

const readLines = (file: string): string[] => fs.readFileSync(file, "utf8").split("\n");

test("what is absent is missing with its oldest version, what is too old is named with both", () => {
  const wanted = { torch: "2.10", pyzmq: "26", numpy: "", msgspec: "0.19" };
  expect(comparePackages(wanted, { torch: "2.10.0", pyzmq: "25.1.2" })).toEqual({
    missing: ["numpy", "msgspec>=0.19"],
    outdated: ["pyzmq 25.1.2 (needs 26)"],
  });
});

test("every installed package is frozen at its exact version", () => {
  expect(freeze({ torch: "2.11.0+cu128", numpy: "1.26.4", odd: "unknown version" })).toBe(
    "torch==2.11.0+cu128\nnumpy==1.26.4\n",
  );
});

test("pyproject.toml asks for the same packages in the same versions", () => {
  const text = fs.readFileSync("pyproject.toml", "utf8");
  for (const [name, oldest] of Object.entries({ ...RUNTIME, ...BUILD, ...DEVELOPMENT })) {
    expect(text).toContain(`"${name}${oldest === "" ? "" : `>=${oldest}`}"`);
  }
  for (const [name, release] of Object.entries(CUDA_COMPILER)) expect(text).toContain(`"${name}==${release}.*"`);
});

test("constraints.txt pins every package that set-up installs, and no other", () => {
  const pinned = readLines("constraints.txt").flatMap((line) => /^([\w-]+)==/.exec(line)?.[1] ?? []);
  expect([...new Set(pinned)].sort()).toEqual(
    Object.keys({ ...RUNTIME, ...BUILD, ...DEVELOPMENT, ...CUDA_COMPILER }).sort(),
  );
});
