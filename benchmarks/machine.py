"""Description of the machine that the figures were measured on."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "ray", "optuna", "mlflow", "numpy", "pandas", "pyarrow", "polars")


def describe_machine() -> dict[str, str]:
    """Return the day, processor, cores, memory, system and versions by name."""
    processors = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    models = {
        line.partition(":")[2].strip() for line in processors if line.startswith("model name")
    }
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "day": f"{datetime.now(UTC):%Y-%m-%d}",
        "processor": ", ".join(sorted(models)) or platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{gibibytes:.1f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(f"{name} {number}" for name, number in _versions().items()),
    }


def _versions() -> dict[str, str]:
    return {"Python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
