import { expect, test } from "vitest";
import { splitArguments } from "../../../scripts/setup/front-door.mjs";

test("options about set-up are taken out, all others belong to the command", () => {
  expect(splitArguments(["--prompt", "def f", "--python", "/p", "--json", "--venv"])).toEqual({
    setupOptions: { ownVenv: true, python: "/p" },
    rest: ["--prompt", "def f", "--json"],
  });
  expect(splitArguments(["--python=/a b/python"]).setupOptions).toEqual({ ownVenv: false, python: "/a b/python" });
});

test("what follows -- is not read", () => {
  expect(splitArguments(["--", "--venv"])).toEqual({ setupOptions: { ownVenv: false }, rest: ["--", "--venv"] });
});

test("a path that is missing after --python is said", () => {
  expect(() => splitArguments(["--python"])).toThrow("Expected a path after `--python`, got nothing.");
});
