from pathlib import Path

import pytest

from tdcompress.bench.host import DEEPSPARSE_PYTHON, SWITCHES, read_host, switches
from tdcompress.engine.binding import HIGHEST_ISA


def write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    write(
        tmp_path, "proc/cpuinfo", "model name\t: Intel(R) Xeon(R) CPU @ 2.70GHz\nflags\t\t: fpu sse4_2 avx2 avx512f amx_bf16 lm\n"
    )
    write(tmp_path, "proc/meminfo", "MemTotal:       16777216 kB\nMemFree:        1 kB\n")
    write(tmp_path, "proc/self/cgroup", "0::/box/inner\n")
    write(tmp_path, "sys/fs/cgroup/box/inner/cpu.max", "150000 100000\n")
    write(tmp_path, "sys/fs/cgroup/box/inner/memory.max", "1073741824\n")
    write(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    write(tmp_path, "proc/driver/nvidia/gpus/0000/information", "Model: \t\t NVIDIA Something\nIRQ: 1\n")
    return tmp_path


def test_facts_are_read(machine):
    host = read_host(machine)
    assert host.cpu == "Intel(R) Xeon(R) CPU @ 2.70GHz"
    assert host.flags == ("amx_bf16", "avx2", "avx512f", "sse4_2")
    assert host.memory_bytes == 16 * 2**30
    assert host.cpu_limit == "1.5"
    assert host.memory_limit == str(2**30)
    assert host.governor == "performance"
    assert host.accelerators == ("NVIDIA Something",)
    assert host.id.startswith(f"intel-xeon-cpu-2-70ghz-{len(host.affinity)}c-")
    assert any(version.startswith("onnxruntime ") for version in host.versions)


def test_what_cannot_be_read_is_unknown(tmp_path):
    host = read_host(tmp_path)
    assert host.governor == "unknown"
    assert host.cpu_limit == host.memory_limit == "unknown"
    assert host.memory_bytes == 0
    assert host.flags == host.accelerators == ()


def test_limits_of_the_first_cgroup_version(machine):
    write(machine, "proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n0::/\n")
    write(machine, "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "50000\n")
    write(machine, "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n")
    write(machine, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")
    host = read_host(machine)
    assert host.cpu_limit == "0.5"
    assert host.memory_limit == "none"


def test_the_id_is_stable_and_changes_with_the_hardware_only(machine):
    before = read_host(machine)
    assert read_host(machine).id == before.id
    write(machine, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    assert read_host(machine).id == before.id
    write(machine, "proc/meminfo", "MemTotal:       33554432 kB\n")
    assert read_host(machine).id != before.id


def test_this_machine_can_be_read():
    host = read_host()
    assert host.cores >= len(host.affinity) >= 1
    assert host.cpu


STEERED = ["TDCOMPRESS_ENGINE_ISA", "OMP_WAIT_POLICY", "KMP_BLOCKTIME", "GOMP_SPINCOUNT", "ORT_DISABLE_X", "MALLOC_ARENA_MAX"]


@pytest.mark.parametrize("name", STEERED)
def test_what_steers_a_measured_time_from_outside_is_among_the_versions(machine, monkeypatch, name):
    assert HIGHEST_ISA in SWITCHES
    monkeypatch.delenv(name, raising=False)
    plain = read_host(machine)
    monkeypatch.setenv(name, "other")
    steered = read_host(machine)
    assert set(steered.versions) - set(plain.versions) == {f"{name}=other"}
    assert steered.id == plain.id  # the machine is the same


def test_switches_are_sorted_and_threads_are_none():
    environment = {
        "KMP_DUPLICATE_LIB_OK": "True",
        "KMP_INIT_AT_FORK": "FALSE",
        "OMP_NUM_THREADS": "4",
        "PATH": "/bin",
        "KMP_AFFINITY": "",
        "OMP_PROC_BIND": "true",
        "LD_PRELOAD": "x.so",
    }
    assert switches(environment) == ("LD_PRELOAD=x.so", "OMP_PROC_BIND=true")


def test_the_deepsparse_of_another_interpreter_is_among_the_versions(machine, monkeypatch, tmp_path):
    monkeypatch.delenv(DEEPSPARSE_PYTHON, raising=False)
    plain = read_host(machine)
    for text, said in (("echo 1.8.0 3.11.9", ("deepsparse 1.8.0 under python 3.11.9",)), ("exit 1", ())):
        interpreter = tmp_path / "python"
        interpreter.write_text(f"#!/bin/sh\n{text}\n")
        interpreter.chmod(0o755)
        monkeypatch.setenv(DEEPSPARSE_PYTHON, str(interpreter))
        assert tuple(each for each in read_host(machine).versions if each not in plain.versions) == said
    monkeypatch.setenv(DEEPSPARSE_PYTHON, str(tmp_path / "missing"))
    assert read_host(machine).versions == plain.versions
