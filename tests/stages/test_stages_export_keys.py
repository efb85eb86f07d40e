"""Settings of an export hold nothing that its file does not use."""

from typing import Any

import pytest

from tdcompress.stages.export import ExportTable, Settings


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pack": False}, "prefer: it chooses"),
        ({"prefer": None}, "prefer: it chooses"),
        ({"int8_range": "full"}, "int8_range: it is of"),
        ({"values": "int8"}, "int8_range: it is of"),
    ],
)
def test_settings_hold_nothing_that_their_format_does_not_use(changes: dict[str, Any], said: str) -> None:
    usual = {"pack": True, "prefer": "speed", "input": "float32", "values": "float32", "int8_range": None}
    assert Settings(**usual) == ExportTable().of("float32")
    with pytest.raises(ValueError, match=said):
        Settings(**(usual | changes))
