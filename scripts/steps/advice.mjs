// What to do when a step fails: a table from what the output says to a sentence, and what to install on which system.
// Pure: knows no step, runs nothing.

import fs from "node:fs";

/** How each system installs the ingredients that set-up cannot bring itself. */
const INSTALL = {
  debian: {
    compiler: "sudo apt install g++",
    venv: "sudo apt install python3-venv",
    headers: "sudo apt install python3-dev",
    python: "sudo apt install python3 python3-venv",
  },
  fedora: {
    compiler: "sudo dnf install gcc-c++",
    venv: "sudo dnf install python3-pip",
    headers: "sudo dnf install python3-devel",
    python: "sudo dnf install python3",
  },
  suse: {
    compiler: "sudo zypper install gcc-c++",
    venv: "sudo zypper install python3-pip",
    headers: "sudo zypper install python3-devel",
    python: "sudo zypper install python3",
  },
  arch: {
    compiler: "sudo pacman -S gcc",
    venv: "sudo pacman -S python",
    headers: "sudo pacman -S python",
    python: "sudo pacman -S python",
  },
  macos: {
    compiler: "xcode-select --install",
    venv: "brew install python",
    headers: "brew install python",
    python: "brew install python",
  },
  other: {
    compiler: "install a C++20 compiler (g++ 11 or clang 14, or newer)",
    venv: "install Python's venv and ensurepip modules with your package manager",
    headers: "install Python's development headers with your package manager",
    python: "install Python 3.10 or newer, from https://www.python.org/downloads/",
  },
};

/**
 * The command or act that installs an ingredient here.
 * @param {"compiler" | "venv" | "headers" | "python"} ingredient
 * @param {keyof typeof INSTALL} [system]
 */
export function howToInstall(ingredient, system = detectSystem()) {
  return INSTALL[system][ingredient];
}

/** The family of the operating system. @param {string} [release] text of /etc/os-release */
export function detectSystem(platform = process.platform, release = readRelease()) {
  if (platform === "darwin") return "macos";
  const ids = [...release.matchAll(/^(?:ID|ID_LIKE)="?([^"\n]*)"?$/gm)].flatMap((match) => match[1].split(/\s+/));
  if (ids.some((id) => id === "debian" || id === "ubuntu")) return "debian";
  if (ids.some((id) => id === "fedora" || id === "rhel" || id === "centos")) return "fedora";
  if (ids.some((id) => id === "suse" || id.startsWith("opensuse"))) return "suse";
  if (ids.includes("arch")) return "arch";
  return "other";
}

/** First match wins: the more specific stand first. */
const CAUSES = [
  {
    pattern: /No space left on device|ENOSPC|Disk quota exceeded/,
    advice: () =>
      "the disk is full. Set-up needs about 8 GB (a CUDA build of torch) or 2 GB (a CPU build); free some, or set TMPDIR if only /tmp is full.",
  },
  {
    pattern: /Killed signal terminated program|MemoryError|JavaScript heap out of memory|ENOMEM|Cannot allocate memory/,
    advice: () => "the machine ran out of memory. Close other programs, or build with one job: MAX_JOBS=1 npm start",
  },
  {
    pattern: /externally-managed-environment/,
    advice: () =>
      "this Python belongs to the operating system and refuses packages. Make an environment that sees its torch, `python3 -m venv --system-site-packages ENV`, and give `--python ENV/bin/python`.",
  },
  {
    pattern: /ensurepip is not available|No module named (?:venv|ensurepip)/,
    advice: (system) => `Python's venv module is missing: ${howToInstall("venv", system)}`,
  },
  {
    pattern: /No module named pip/,
    advice: () =>
      "this Python has no pip: `python -m ensurepip --user`, or install the missing packages with the tool that made the environment.",
  },
  {
    pattern: /Python\.h: No such file|'Python\.h' file not found/,
    advice: (system) => `Python's headers are missing: ${howToInstall("headers", system)}`,
  },
  {
    pattern: /unrecognized command[- ]line option .-std=c\+\+20|invalid value 'c\+\+20'|You need C\+\+20/,
    advice: (system) =>
      `the C++ compiler is too old for C++20. g++ 11 or clang 14 is enough: ${howToInstall("compiler", system)}`,
  },
  {
    pattern:
      /(?:g\+\+|c\+\+|gcc|clang\+\+|cc1plus)\S*:? (?:command )?not found|No such file or directory: '\S*(?:g\+\+|c\+\+|gcc|clang\+\+)'|cannot execute .?cc1plus/,
    advice: (system) => `no C++ compiler was found: ${howToInstall("compiler", system)}`,
  },
  {
    pattern: /CERTIFICATE_VERIFY_FAILED|SELF_SIGNED_CERT|UNABLE_TO_GET_ISSUER_CERT|unable to get local issuer/,
    advice: () =>
      "a TLS certificate was refused, as behind a company proxy: set NODE_EXTRA_CA_CERTS and PIP_CERT to the proxy's certificate.",
  },
  {
    pattern:
      /Temporary failure in name resolution|NewConnectionError|ConnectTimeout|ReadTimeoutError|Read timed out|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|Network is unreachable/,
    advice: () =>
      "the package registry could not be reached. Check the network, the proxy (HTTPS_PROXY), and your npm and pip configuration; what was downloaded is kept.",
  },
  {
    pattern: /ResolutionImpossible|conflicting dependencies/,
    advice: () =>
      "the packages already in this Python do not fit those that are missing, and set-up changes none that is there. Update them yourself, or let set-up make its own .venv: npm start -- --venv",
  },
  {
    pattern: /No matching distribution found/,
    advice: () =>
      "the package index has no build for this Python and system. torch comes for CPython 3.10 to 3.14, 64 bit, glibc or macOS; check also your pip configuration (`pip config list`).",
  },
  {
    pattern: /EACCES|EPERM|Permission denied|EROFS|Read-only file system/,
    advice: () => "a file could not be written. Is this folder yours? (Set-up never needs sudo.)",
  },
];

/**
 * The advice for a failed command; undefined if its output says nothing known.
 * @param {{ output: string, code: number | null, signal: string | null, system?: keyof typeof INSTALL }} failure
 */
export function advise({ output, code, signal, system = detectSystem() }) {
  const cause = CAUSES.find(({ pattern }) => pattern.test(output));
  if (cause !== undefined) return cause.advice(system);
  // 137 = 128 + SIGKILL, as a shell reports it: nobody but the kernel's out-of-memory killer sends it unasked.
  if (signal === "SIGKILL" || code === 137)
    return "the process was killed, most likely for want of memory. Close other programs, or build with one job: MAX_JOBS=1 npm start";
  return undefined;
}

function readRelease() {
  try {
    return fs.readFileSync("/etc/os-release", "utf8");
  } catch {
    return "";
  }
}
