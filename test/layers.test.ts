// Imports point down the layers of docs/architecture.md. Walks every import of src/.

import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test } from "vitest";

const SRC = fileURLToPath(new URL("../src", import.meta.url));

/** Rank of each layer; a file imports its own layer and lower ones. Folders rank their files. */
const LAYERS: readonly (readonly string[])[] = [
  ["errors.ts"],
  ["dtype.ts"],
  ["tensor.ts"],
  ["protocol.ts"],
  ["codec.ts", "codec/", "transport.ts", "arena/"],
  ["worker-process.ts", "worker-process/", "session/", "transports/"],
  ["client/"],
  ["index.ts", "cli/"],
];

/** Packages that one place alone may import; `marlin doctor` only tries whether the native ones load. */
const OWNERS: Readonly<Record<string, RegExp>> = {
  zeromq: /^(transports\/zeromq|cli\/commands\/doctor)\.ts$/,
  koffi: /^(arena\/|cli\/commands\/doctor\.ts$)/,
  "node:child_process": /^(worker-process(\.ts|\/)|cli\/)/,
};

interface Import {
  readonly from: string;
  readonly to: string;
}

describe("imports of src/", () => {
  const imports = listImports();

  test("are found", () => {
    expect(imports.length).toBeGreaterThan(50);
  });

  test("point down the layers, or within one", () => {
    const upward = imports.filter(({ from, to }) => isFile(to) && rankOf(to) > rankOf(from));
    expect(upward).toEqual([]);
  });

  test("leave the concrete transports to the client", () => {
    expect(imports.filter(({ from, to }) => /^(session|codec)/.test(from) && to.startsWith("transports/"))).toEqual([]);
    expect(imports.filter(({ from, to }) => from.startsWith("session/") && to.startsWith("arena/"))).toEqual([]);
    expect(imports.filter(({ from, to }) => from.startsWith("transports/") && /^(session|codec)/.test(to))).toEqual([]);
  });

  test.each(Object.entries(OWNERS))("of %s are in its one place", (name, owner) => {
    const users = imports.filter(({ to }) => to === name).map(({ from }) => from);
    expect(users).not.toEqual([]);
    expect(users.filter((from) => !owner.test(from))).toEqual([]);
  });
});

function listImports(): Import[] {
  return fs
    .readdirSync(SRC, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .flatMap((name) => {
      const text = fs.readFileSync(path.join(SRC, name), "utf8");
      return [...text.matchAll(/(?:\bfrom|\bimport)\s*\(?\s*"([^"]+)"/g)].map(([, specifier = ""]) => ({
        from: name,
        to: specifier.startsWith(".") ? path.join(path.dirname(name), specifier) : specifier,
      }));
    });
}

function isFile(to: string): boolean {
  return to.endsWith(".ts");
}

function rankOf(file: string): number {
  const rank = LAYERS.findIndex((layer) =>
    layer.some((entry) => (entry.endsWith("/") ? file.startsWith(entry) : file === entry)),
  );
  if (rank < 0) throw new Error(`${file} is in no layer; add it to docs/architecture.md and here.`);
  return rank;
}
