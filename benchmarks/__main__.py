"""`make bench`: run every subject, print which targets hold, and write docs/benchmarks.md anew.

Each subject is a process of its own, so that none inherits another's memory, threads or caches. One that fails leaves a note in
the page and in the exit code; a target that is missed does not.
"""

import subprocess
import sys
import time
from pathlib import Path

from benchmarks.measure import Result, read_result
from benchmarks.report import summary_lines, write_report

SUBJECTS = ("sampling", "training", "ranking", "preprocessing", "search", "scale", "large")
DOCS = Path(__file__).parents[1] / "docs"


def main() -> int:
    """Returns the exit code: 1 if a subject failed."""
    results = []
    for subject in SUBJECTS:
        sys.stdout.write(f"\n{subject}\n")
        sys.stdout.flush()
        results.append(run_subject(subject))
    write_report(results, DOCS)
    sys.stdout.write("\n" + "\n".join(summary_lines(results)) + "\n")
    return int(any(result.error for result in results))


def run_subject(subject: str) -> Result:
    """Run a subject; its rows appear on standard error as they are measured."""
    start = time.perf_counter()
    command = [sys.executable, "-m", f"benchmarks.{subject}", "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        return Result(
            subject, time.perf_counter() - start, [], f"ended with exit code {done.returncode}"
        )
    return read_result(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
