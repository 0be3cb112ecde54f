"""Command of `make bench`: run every subject, print which targets hold, write docs/benchmarks.md.

Each subject runs in a process of its own, so that it inherits no memory, threads or caches. A
subject that fails changes the exit code and is named on the page; a missed target does not change
the exit code.
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
    """Run all subjects and return the exit code: 1 if one failed."""
    results = []
    for subject in SUBJECTS:
        sys.stdout.write(f"\n{subject}\n")
        sys.stdout.flush()
        results.append(run_subject(subject))
    write_report(results, DOCS)
    sys.stdout.write("\n" + "\n".join(summary_lines(results)) + "\n")
    return int(any(result.error for result in results))


def run_subject(subject: str) -> Result:
    """Run a subject in a process that prints its rows on standard error as it measures them."""
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
