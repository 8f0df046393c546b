import { expect, test } from "vitest";
import { advise, detectSystem, howToInstall } from "../../../scripts/steps/advice.mjs";

const failure = (output: string, changes = {}) => ({
  output,
  code: 1,
  signal: null,
  system: "debian" as const,
  ...changes,
});

test.each([
  ["a full disk", "OSError: [Errno 28] No space left on device", /disk is full/],
  ["npm's full disk", "npm error code ENOSPC", /disk is full/],
  ["no compiler", "marlin: error: [Errno 2] No such file or directory: 'g++'", /apt install g\+\+/],
  ["a shell without compiler", "/bin/sh: 1: c++: not found", /apt install g\+\+/],
  ["an old compiler", "cc1plus: error: unrecognized command line option '-std=c++20'", /too old for C\+\+20/],
  ["a killed compiler", "c++: fatal error: Killed signal terminated program cc1plus", /out of memory/],
  [
    "no venv",
    "The virtual environment was not created successfully because ensurepip is not available.",
    /apt install python3-venv/,
  ],
  ["no pip", "/usr/bin/python3: No module named pip", /has no pip/],
  ["a Python of the system", "error: externally-managed-environment", /--system-site-packages/],
  ["no name resolution", "[Errno -3] Temporary failure in name resolution", /registry could not be reached/],
  ["npm without network", "npm error errno EAI_AGAIN", /registry could not be reached/],
  ["a company proxy", "ssl.SSLCertVerificationError: [SSL: CERTIFICATE_VERIFY_FAILED]", /PIP_CERT/],
  ["no build for this Python", "ERROR: No matching distribution found for torch==2.13.0", /CPython 3\.10 to 3\.14/],
  ["a conflict with frozen packages", "ERROR: ResolutionImpossible: for help visit", /--venv/],
  ["a folder of somebody else", "npm error code EACCES", /could not be written/],
])("%s is explained", (_, output, advice) => {
  expect(advise(failure(output))).toMatch(advice);
});

test("a process killed without a word was out of memory", () => {
  expect(advise(failure("", { code: null, signal: "SIGKILL" }))).toMatch(/memory/);
  expect(advise(failure("", { code: 137 }))).toMatch(/memory/);
});

test("what is not known gets no invented advice", () => {
  expect(advise(failure("error TS2322: Type 'string' is not assignable to type 'number'."))).toBeUndefined();
});

test.each([
  ["linux", "ID=ubuntu\nID_LIKE=debian\n", "debian"],
  ["linux", 'ID=debian\nVERSION_ID="12"\n', "debian"],
  ["linux", 'ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora"],
  ["linux", 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n', "suse"],
  ["linux", "ID=arch\n", "arch"],
  ["linux", "", "other"],
  ["darwin", "", "macos"],
] as const)("on %s, %j is %s", (platform, release, system) => {
  expect(detectSystem(platform, release)).toBe(system);
  expect(howToInstall("compiler", system)).not.toBe("");
});
