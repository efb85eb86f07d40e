"""A key knows data by its content; where it lies is the machine's to say, and other data is refused."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tdcompress.data.digits import DigitsSettings
from tdcompress.data.images import ImageDataset, Images, ImageSettings
from tdcompress.data.registry import DATASETS
from tdcompress.errors import DataError
from tdcompress.lineage.origin import KnownData


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderData(ImageSettings):
    """A data set of one file: two images of that value."""

    name = "folder"
    root: str = "nowhere"

    def side(self) -> int:
        return 4

    def load(self) -> ImageDataset:
        images = Images(pixels=torch.full((2, 4, 4, 1), int(self._text()), dtype=torch.uint8), labels=torch.arange(2))
        digits = DATASETS["digits"]().load()
        return dataclasses.replace(digits, train=images, test=images)

    def content_hash(self, hash_file: Any = None) -> str:
        return f"content {self._text()}"

    def _text(self) -> str:
        return (Path(self.root) / "value").read_text()


def test_data_is_known_by_content_and_found_by_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in (("here", "7"), ("nowhere", "8")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "value").write_text(value)
    data = KnownData.of(FolderData(root="here"))
    assert data == KnownData.of(FolderData(root=str(tmp_path / "here")))  # wherever it lies
    assert "root" not in data.to_json()
    assert data.load({data.content: tmp_path / "here"}).test.pixels.max() == 7
    with pytest.raises(DataError, match="what lies in nowhere is other data than the network was trained on"):
        data.load({})


def test_data_that_changed_is_read_anew_by_the_same_process(tmp_path: Path) -> None:
    settings = FolderData(root=str(tmp_path))
    for value in (7, 8, 7):
        (tmp_path / "value").write_text(str(value))
        data = KnownData.of(settings)
        assert data.load({data.content: tmp_path}).test.pixels.unique().tolist() == [value]


def test_data_that_changed_after_it_was_hashed_is_refused(tmp_path: Path) -> None:
    value = tmp_path / "value"
    value.write_text("17")
    data = KnownData.of(FolderData(root=str(tmp_path)))
    value.write_text("18")
    with pytest.raises(DataError, match=re.escape(f"what lies in {tmp_path} is other data than") + ".* changed .* run again"):
        data.task({data.content: tmp_path})
    value.write_text("17")
    assert data.load({data.content: tmp_path}).test.pixels.max() == 17


def test_data_of_a_package_are_hashed_once_a_process() -> None:
    hashed = []

    class Packaged(DigitsSettings):
        def content_hash(self, hash_file: Any = None) -> str:
            hashed.append(self)
            return "as packaged"

    data = KnownData(content="as packaged", settings=Packaged())
    assert data.load({}).train is data.load({}).train
    assert len(hashed) == 1
    with pytest.raises(DataError, match="digits: the network was trained on other data than the package has"):
        KnownData(content="as packaged before", settings=Packaged()).load({})
