"""Facts about the machine that a latency belongs to. What cannot be read is "unknown", never guessed."""

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tdcompress.limits import UNKNOWN, affinity, container_limits, read_fact
from tdcompress.processor import read_processor

PACKAGES = ("tdcompress", "numpy", "onnx", "onnxruntime", "openvino", "deepsparse")
# These variables decide from outside which kernels run, how threads wait and where memory comes from. A measurement with one of
# them set has another key. OMP_NUM_THREADS is none of them: threads are a setting, and every backend is given them.
SWITCHES = ("TDCOMPRESS_ENGINE_ISA", "LD_PRELOAD", "GLIBC_TUNABLES", "CUDA_LAUNCH_BLOCKING", "CUDA_MODULE_LOADING")
SWITCH_PREFIXES = ("OMP_", "GOMP_", "KMP_", "MKL_", "DNNL_", "ONEDNN_", "ORT_", "OV_", "TBB_", "NM_", "MALLOC_", "NVIDIA_TF32_")
# scikit-learn sets the other two when it is imported, which a run does only where its data is new; they steer no time.
NO_SWITCHES = ("OMP_NUM_THREADS", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK")
DEEPSPARSE_PYTHON = "TDCOMPRESS_DEEPSPARSE_PYTHON"  # names the interpreter that DeepSparse runs under
_ASK_DEEPSPARSE = "import importlib.metadata as m, platform; print(m.version('deepsparse'), platform.python_version())"
# Instruction sets that decide which kernels a runtime picks; the whole flag list is a page of noise.
FLAGS = re.compile(r"^(sse4_2|avx\w*|fma|f16c|amx_\w+|asimd\w*|neon|sve\w*|bf16|i8mm|fphp|hypervisor)$")


@dataclass(frozen=True, kw_only=True)
class Host:
    """One machine as the benchmark saw it.

    Attributes:
        id: short name, equal for machines that the fields from `cpu` to `accelerators` do not tell apart; holds no
            host name.
        cpu: model name.
        flags: instruction sets, sorted.
        cores: logical cores of the machine.
        affinity: numbers of the cores this process may use.
        cpu_limit: cores that a container's quota allows, or "none" or "unknown".
        memory_bytes: RAM of the machine.
        memory_limit: bytes that a container's limit allows, or "none" or "unknown".
        governor: CPU frequency governor or "unknown".
        accelerators: model names of GPUs.
        os: system, release and machine type.
        versions: "package version" of python and of what takes part, also under the interpreter of DeepSparse, and "NAME=value"
            of what steers them from outside.
        load_average: runnable processes over the last minute at the start of the benchmark, or None.
    """

    id: str
    cpu: str
    flags: tuple[str, ...]
    cores: int
    affinity: tuple[int, ...]
    cpu_limit: str
    memory_bytes: int
    memory_limit: str
    governor: str
    accelerators: tuple[str, ...]
    os: str
    versions: tuple[str, ...]
    load_average: float | None


def read_host(root: Path = Path("/")) -> Host:
    """Read the facts of this machine.

    Args:
        root: where /proc and /sys hang (another folder in tests).
    """
    processor = read_processor(root)
    cpu, flags = processor.name, tuple(flag for flag in processor.flags if FLAGS.match(flag))
    cores = os.cpu_count() or 1
    cores_of_process = affinity()
    memory_bytes = _memory_bytes(root)
    cpu_limit, memory_limit = container_limits(root)
    accelerators = _accelerators(root)
    lasting = (cpu, flags, cores, cores_of_process, cpu_limit, round(memory_bytes / 2**30), memory_limit, accelerators)
    digest = hashlib.sha256(repr(lasting).encode()).hexdigest()[:6]
    name = re.sub(r"[^a-z0-9]+", "-", cpu.lower().replace("(r)", "").replace("(tm)", "")).strip("-")[:32].rstrip("-")
    return Host(
        id=f"{name}-{len(cores_of_process)}c-{digest}",
        cpu=cpu,
        flags=flags,
        cores=cores,
        affinity=cores_of_process,
        cpu_limit=cpu_limit,
        memory_bytes=memory_bytes,
        memory_limit=memory_limit,
        governor=read_fact(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or UNKNOWN,
        accelerators=accelerators,
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
        versions=_versions(),
        load_average=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    )


def _memory_bytes(root: Path) -> int:
    found = re.search(r"^MemTotal:\s+(\d+) kB", read_fact(root / "proc/meminfo") or "", re.MULTILINE)
    return int(found.group(1)) * 1024 if found else 0


def _accelerators(root: Path) -> tuple[str, ...]:
    models = list[str]()
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", read_fact(path) or "", re.MULTILINE)
        models.append(found.group(1).strip() if found else UNKNOWN)
    return tuple(models)


def _versions() -> tuple[str, ...]:
    found = [f"python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return (*found, *_deepsparse(), *switches(os.environ))


def switches(environment: Mapping[str, str]) -> tuple[str, ...]:
    """What steers a measured time from outside.

    Args:
        environment: variable -> value.

    Returns:
        "NAME=value" of each that is set, sorted.
    """
    return tuple(
        f"{name}={value}"
        for name, value in sorted(environment.items())
        if value and (name in SWITCHES or name.startswith(SWITCH_PREFIXES)) and name not in NO_SWITCHES
    )


def _deepsparse() -> tuple[str, ...]:
    """What runs in the child of the backend "deepsparse", where an interpreter is named that has it."""
    interpreter = os.environ.get(DEEPSPARSE_PYTHON)
    if not interpreter:
        return ()
    try:
        answer = subprocess.run(
            [interpreter, "-I", "-c", _ASK_DEEPSPARSE],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=60,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ()  # whoever measures with it is told why
    deepsparse, _, python = answer.stdout.strip().partition(" ")
    return (f"deepsparse {deepsparse} under python {python}",)
