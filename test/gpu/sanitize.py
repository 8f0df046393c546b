"""Runs the kernels under compute-sanitizer: memcheck, racecheck, synccheck and initcheck.

    python test/gpu/sanitize.py                         all four; needs a GPU and the CUDA library
    python test/gpu/sanitize.py --tools memcheck

Prints a table; the logs are in build/sanitizer. Exit code 1 for a finding, 2 without the tool.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "csrc"))

from buildtools.cuda import find_any_cuda  # noqa: E402
from buildtools.errors import BuildError  # noqa: E402

__all__ = ["TOOLS", "Outcome", "find_sanitizer", "findings_of", "outcome_of", "render"]

PROGRAM = ROOT / "test/gpu/sanitized_products.py"
LOGS = ROOT / "build/sanitizer"
# Errors of the API are what torch asks for by trial, too; one that matters ends the program.
TOOLS = {
    "memcheck": ("--report-api-errors", "no"),
    "racecheck": (),
    "synccheck": (),
    "initcheck": (),
}
PRINTED = "1000"  # findings of a tool that are written out
TOOL_SECONDS = 1200

_MARK = "========= "
_SUMMARY = re.compile(
    r"^=+ (?:ERROR SUMMARY: (\d+) errors?|RACECHECK SUMMARY: (\d+) hazards? displayed)", re.M
)
_PLACE = re.compile(r"^at (.+)")
_OFFSET = re.compile(r"\+0x.*")


@dataclass(frozen=True)
class Outcome:
    """What one tool said.

    errors: of its summary; None if it came to none. findings: kind and kernel, and how often.
    """

    tool: str
    exit_code: int | None
    errors: int | None
    findings: Mapping[str, int]
    seconds: float

    @property
    def is_clean(self) -> bool:
        return self.exit_code == 0 and self.errors == 0

    @property
    def verdict(self) -> str:
        if self.exit_code is None:
            return f"took more than {TOOL_SECONDS} s"
        if self.errors is None:
            return f"did not finish, exit code {self.exit_code}"
        if self.errors:
            return f"{self.errors} found"
        return "clean" if self.exit_code == 0 else f"exit code {self.exit_code}: a wrong result?"


def find_sanitizer(environ: Mapping[str, str]) -> Path | None:
    """compute-sanitizer beside nvcc, else on PATH."""
    try:
        home = find_any_cuda(environ).nvcc.parent.parent
    except BuildError:
        home = None
    if home is not None:
        for place in ("bin/compute-sanitizer", "compute-sanitizer/compute-sanitizer"):
            if (home / place).is_file():
                return home / place
    found = shutil.which("compute-sanitizer", path=environ.get("PATH"))
    return None if found is None else Path(found)


def outcome_of(tool: str, exit_code: int | None, output: str, seconds: float) -> Outcome:
    """Reads what a tool printed."""
    counts = [int(first or second) for first, second in _SUMMARY.findall(output)]
    errors = sum(counts) if counts else None
    return Outcome(tool, exit_code, errors, findings_of(output), seconds)


def findings_of(output: str) -> Counter[str]:
    """Each kind of finding with the kernel that it is in, and how often it was printed."""
    findings: Counter[str] = Counter()
    title = ""
    for line in output.splitlines():
        if not line.startswith(_MARK):
            continue
        text = line.removeprefix(_MARK)
        if not text.startswith(" "):
            title = "" if "SUMMARY" in text or text == "COMPUTE-SANITIZER" else text
            if " access at " in title:  # a race names its kernel at once
                findings[_OFFSET.sub("", title)] += 1
            continue
        place = _PLACE.match(text.strip())
        if title and " access at " not in title and place is not None:
            findings[f"{title} {_OFFSET.sub('', place[0])}"] += 1
            title = ""
    return findings


def render(outcomes: list[Outcome]) -> list[str]:
    """The table."""
    lines = [f"{'tool':<12}{'seconds':>8}  verdict"]
    for outcome in outcomes:
        lines.append(f"{outcome.tool:<12}{outcome.seconds:>8.0f}  {outcome.verdict}")
        lines += [f"    {count} x {text}" for text, count in sorted(outcome.findings.items())]
    return lines


def run(sanitizer: Path, tool: str) -> Outcome:
    """One tool over the products; its output goes to a log."""
    command = [str(sanitizer), "--tool", tool, *TOOLS[tool], "--print-limit", PRINTED]
    # Each tensor is memory of its own: else an access past its end is one to torch's cache.
    environ = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{tool}.log"
    begin = time.monotonic()
    exit_code: int | None
    with log.open("w", encoding="utf-8") as file:
        try:
            exit_code = subprocess.run(
                [*command, sys.executable, str(PROGRAM)],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environ,
                check=False,
                timeout=TOOL_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            exit_code = None
    seconds = time.monotonic() - begin
    return outcome_of(tool, exit_code, log.read_text("utf-8", errors="replace"), seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=list(TOOLS))
    options = parser.parse_args()
    sanitizer = find_sanitizer(os.environ)
    if sanitizer is None:
        print(
            "there is no compute-sanitizer beside nvcc or on PATH: set CUDA_HOME to a toolkit "
            "that has it (NVIDIA's PyPI packages of nvcc do not)",
            file=sys.stderr,
        )
        return 2
    outcomes = []
    for tool in options.tools:
        outcomes.append(run(sanitizer, tool))
        print("\n".join(render(outcomes[-1:])), flush=True)
    print("\n".join(["", *render(outcomes)]))
    print(f"logs: {LOGS}")
    return 0 if all(outcome.is_clean for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
