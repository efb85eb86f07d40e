"""The tasks that settings of data can name."""

from collections.abc import Mapping

from tdcompress.tasks.base import LearningTask
from tdcompress.tasks.classification import Classification
from tdcompress.tasks.translation import MachineTranslation

TASKS: Mapping[str, type[LearningTask]] = {task.name: task for task in (Classification, MachineTranslation)}
"""A task's name -> the task of a loaded data set of its kind."""
