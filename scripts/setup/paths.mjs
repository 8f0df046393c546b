// Where set-up reads and writes. Everything it writes that is not an installed package lies under .marlin/.

import path from "node:path";
import { fileURLToPath } from "node:url";

/** The folder of package.json, whatever the current directory is. */
export const ROOT = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "..", "..");

export const STATE = path.join(ROOT, ".marlin");
export const LOGS = path.join(STATE, "logs");
export const STAMPS = path.join(STATE, "stamps");
export const LOCK = path.join(STATE, "setup.lock");
export const VENV = path.join(ROOT, ".venv");
export const VENV_PYTHON = path.join(VENV, "bin", "python");
