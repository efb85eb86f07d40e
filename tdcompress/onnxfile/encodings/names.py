"""Names inside one section of a packed file."""

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper


@dataclass(frozen=True)
class Names:
    """Names inside one section; `names("codes")` is the prefix and "codes"."""

    prefix: str

    def __call__(self, name: str) -> str:
        """The full name."""
        return self.prefix + name

    def owns(self, name: str) -> bool:
        """Whether a name is of this section."""
        return name.startswith(self.prefix)

    def node(self, operator: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
        """A node between values of this section; `inputs` are names with spaces between.

        Args:
            operator: of ONNX.
            inputs: names with spaces between.
            output: name.
            attributes: of the operator.
        """
        return helper.make_node(operator, [self(name) for name in inputs.split()], [self(output)], **attributes)
