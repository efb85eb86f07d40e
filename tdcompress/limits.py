"""What this process may use of its machine: cores and memory, by affinity and by its container's limits."""

import math
import os
from pathlib import Path

UNKNOWN = "unknown"


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process may run on and its container pays for; at least 1.

    Args:
        root: where /proc and /sys hang (another folder in tests).
    """
    limit, _ = container_limits(root)
    try:
        return max(1, min(usable_cores(), math.ceil(float(limit))))
    except ValueError:  # "none", "unknown"
        return usable_cores()


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(affinity())


def affinity() -> tuple[int, ...]:
    """The numbers of these cores."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def container_limits(root: Path) -> tuple[str, str]:
    """Quota in cores and memory in bytes from cgroup v2 or v1: the tightest of this process's group and the root's."""
    groups = dict[str, str]()
    for line in (read_fact(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path.strip("/")))
    if not groups:
        return UNKNOWN, UNKNOWN
    base = root / "sys/fs/cgroup"
    quotas, memories = list[float](), list[int]()
    for folder in {base, base / groups.get("", "")}:
        quota, _, period = (read_fact(folder / "cpu.max") or "max 1").partition(" ")
        quotas += [int(quota) / int(period)] if quota != "max" else []
        memory = read_fact(folder / "memory.max") or "max"
        memories += [int(memory)] if memory != "max" else []
    for folder in {base / "cpu", base / "cpu" / groups.get("cpu", "")}:
        quota, period = read_fact(folder / "cpu.cfs_quota_us") or "-1", read_fact(folder / "cpu.cfs_period_us") or "1"
        quotas += [int(quota) / int(period)] if int(quota) > 0 else []
    for folder in {base / "memory", base / "memory" / groups.get("memory", "")}:
        memory = read_fact(folder / "memory.limit_in_bytes") or ""
        # v1 writes "no limit" as the largest multiple of the page size.
        memories += [int(memory)] if memory and int(memory) < 2**62 else []
    return (f"{min(quotas):g}" if quotas else "none"), (str(min(memories)) if memories else "none")


def read_fact(path: Path) -> str | None:
    """What a file of the system says, or None where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
