"""What is timed, by the task that a file's metadata names: one file, unless the task has a workload of its own here.

Fresh processes import these files, and their memory is the runtime's: what reads models is imported where it is used.
"""

from collections.abc import Mapping

from tdcompress.bench.workloads.base import Workload
from tdcompress.bench.workloads.network import SingleRun
from tdcompress.bench.workloads.translation import Translating
from tdcompress.text.names import TASK

WORKLOADS: Mapping[str, Workload] = {TASK: Translating()}


def workload_of(task: str | None) -> Workload:
    """How networks of a task are used; None = the file names none."""
    return WORKLOADS.get(task or "", SingleRun())
