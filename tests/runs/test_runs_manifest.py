import json

from tdcompress.runs.manifest import STAGES, linked_stages


def test_links_that_no_folder_can_have_are_passed_over(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (tmp_path / "stages" / "train").mkdir(parents=True)
    (tmp_path / "loop").symlink_to("loop")
    links = ["../stages/train", "../stages/none", "../loop", "a\0b", "a\ud800b", "a" * 5000]
    (run / STAGES).write_text(json.dumps({"row": {str(number): link for number, link in enumerate(links)}}))
    assert linked_stages(run) == [tmp_path / "stages" / "train"]


def test_links_that_cannot_be_read_are_none(tmp_path):
    for content in ("[" * 200_000, "{", "[]", '{"row": ["x"]}'):
        (tmp_path / STAGES).write_text(content)
        assert linked_stages(tmp_path) == []
