"""From one artifacts folder to another: all or nothing, keys checked, nothing overwritten that is not of less worth."""

import json
import shutil
from dataclasses import replace

import pytest

from tdcompress.artifacts import sealed
from tdcompress.errors import ArtifactError, BusyError, UserError
from tdcompress.lineage.versions import VERSIONS
from tdcompress.locks import hold
from tdcompress.pipeline import Stage, Task
from tdcompress.records.stages import TrainRecord, VocabularyRecord
from tdcompress.stores.folder import FolderStore
from tdcompress.transfer.export import export_items
from tdcompress.transfer.intake import import_files
from tdcompress.transfer.items import named, places
from tdcompress.transfer.listing import artifacts_table

PART = 100_000


@pytest.fixture
def send(tmp_path):
    """Export all of a folder; gives the parts."""

    def run(root, name="out", wanted=None, **options):
        return export_items(root, places(root) if wanted is None else wanted, tmp_path / name, PART, **options)

    return run


def outcomes(done):
    return [entry.outcome for entry in done]


def test_all_that_travels_arrives(made, send, small, tmp_path, make_recorder):
    root, finished, unfinished = made
    sent = send(root)
    assert len(sent.files) > 4
    assert all(path.stat().st_size <= PART for path in sent.files)
    there = tmp_path / "there"
    assert outcomes(import_files(there, sent.files)) == ["imported", "imported"]
    assert FolderStore(there).find_or_set_aside("train", finished).recorded(TrainRecord) == small.RECORD
    before, after = small.contents(root), small.contents(there)
    gone = {name for name in before if "step-000000004" in name}
    assert after == {name: content for name, content in before.items() if name not in gone}
    assert [path.name for path in there.iterdir() if path.name.startswith(".import")] == []
    # a runner finds them there
    recorder = make_recorder()
    small.fill(there, recorder, small.task(1, b"never made"))
    assert recorder.kept == ["train"]
    assert (there / "stages" / "train" / f"{unfinished}.partial").is_dir()


def test_a_second_import_finds_everything_there(made, send, small, tmp_path):
    sent, there = send(made[0]), tmp_path / "there"
    import_files(there, sent.files)
    before = small.contents(there)
    assert outcomes(import_files(there, sent.files)) == ["already there", "already there"]
    assert small.contents(there) == before
    assert outcomes(import_files(made[0], sent.files)) == ["already there", "already there"]


def test_nothing_arrives_where_one_part_is_missing_or_damaged(made, send, small, tmp_path):
    sent, there = send(made[0]), tmp_path / "there"
    with pytest.raises(ArtifactError, match="is not among"):
        import_files(there, sent.files[:-1])
    damaged = bytearray(sent.files[-1].read_bytes())
    damaged[len(damaged) // 2] ^= 1
    sent.files[-1].write_bytes(damaged)
    with pytest.raises(ArtifactError, match="damaged"):
        import_files(there, sent.files)
    assert small.contents(there) == {}


def test_a_key_that_is_there_with_other_content(made, send, small, tmp_path, make_recorder):
    sent, there = send(made[0]), tmp_path / "there"
    small.fill(there, make_recorder(), small.task(1, b"of another processor"))
    before = small.contents(there)
    with pytest.raises(ArtifactError, match="with other content; nothing was imported"):
        import_files(there, sent.files)
    assert small.contents(there) == before
    assert sorted(path.name for path in (there / "stages" / "train").iterdir()) == [made[1]]


def test_a_training_that_is_further_takes_the_place_of_one_that_is_not(made, send, small, tmp_path):
    root, _, unfinished = made
    there, partial = tmp_path / "there", f"{unfinished}.partial"
    early = send(root, "early")
    import_files(there, early.files)
    small.write_checkpoint(root / "stages" / "train" / partial, 12, b"further")
    late = send(root, "late")
    assert outcomes(import_files(there, late.files)) == ["already there", "imported"]
    assert sorted(p.name for p in (there / "stages" / "train" / partial).rglob("step-*.json")) == ["step-000000012.json"]
    assert outcomes(import_files(there, early.files)) == ["already there", "further here"]
    small.write_checkpoint(there / "stages" / "train" / partial, 12, b"another")
    with pytest.raises(ArtifactError, match=r"\(unfinished\) is in .* with other content"):
        import_files(there, late.files)


def test_a_finished_training_ends_an_unfinished_one(made, send, small, tmp_path, make_recorder):
    root, _, unfinished = made
    there = tmp_path / "there"
    import_files(there, send(root, "early").files)
    small.fill(root, make_recorder(), small.task(2, small.CONTENT[::-1]))
    (place,) = named(places(root), unfinished)
    late = send(root, "late", [place])
    assert outcomes(import_files(there, late.files)) == ["imported"]
    assert not (there / "stages" / "train" / f"{unfinished}.partial").exists()
    assert outcomes(import_files(there, send(made[0], "again").files)) == ["already there", "already there"]
    assert (there / "stages" / "train" / unfinished).is_dir()


def test_an_unfinished_training_does_not_come_after_a_finished_one(made, send, small, tmp_path, make_recorder):
    early = send(made[0])
    small.fill(made[0], make_recorder(), small.task(2, small.CONTENT[::-1]))
    assert outcomes(import_files(made[0], early.files)) == ["already there", "further here"]
    assert not list((made[0] / "stages" / "train").glob("*.partial"))


def _forged(root, key, unfinished):
    """Give the folder of one training the key of another, as if it were that one's result."""
    stages = root / "stages" / "train"
    other = "0123456789abcdef"
    if unfinished:
        (stages / f"{key}.partial").rename(stages / f"{other}.partial")
    else:
        manifest = json.loads((stages / key / "manifest.json").read_text())
        (stages / key / "manifest.json").write_text(json.dumps(sealed({**manifest, "key": other})))
        (stages / key).rename(stages / other)
    return other


@pytest.mark.parametrize(
    ("unfinished", "said"), [(False, "its key is not of its settings and inputs"), (True, "describes something whose key is")]
)
def test_a_key_of_something_else_is_neither_exported_nor_imported(made, send, small, tmp_path, unfinished, said, monkeypatch):
    root = made[0]
    other = _forged(root, made[1 + unfinished], unfinished)
    (place,) = named(places(root), other)
    with pytest.raises(ArtifactError, match=said):
        send(root, wanted=[place])
    with monkeypatch.context() as careless:
        careless.setattr("tdcompress.transfer.items._check_key", lambda *arguments: None)
        careless.setattr("tdcompress.artifacts.content_key", lambda identity: other)
        sent = send(root, wanted=[place])
    with pytest.raises(ArtifactError, match=said):
        import_files(tmp_path / "there", sent.files)
    assert small.contents(tmp_path / "there") == {}


def _other_record(root, key):
    """Take a field out of an artefact's record, and seal its manifest again."""
    manifest = root / "stages" / "train" / key / "manifest.json"
    said = json.loads(manifest.read_text())
    del said["record"]["accuracy"]
    manifest.write_text(json.dumps(sealed(said)))


def test_an_artefact_whose_record_has_another_shape_gives_way_to_the_imported_one(made, send, tmp_path):
    root, finished, _ = made
    sent = send(root)
    _other_record(root, finished)
    assert outcomes(import_files(root, sent.files)) == ["imported", "already there"]
    assert FolderStore(root).find_or_set_aside("train", finished, TrainRecord).files
    assert (root / "stages" / "train" / f"{finished}.damaged").is_dir()


def test_what_no_run_would_go_on_from_does_not_travel(made, send, small, tmp_path, make_recorder, monkeypatch):
    root, finished, unfinished = made
    _other_record(root, finished)
    older = VERSIONS["train"] - 1
    tasks = small.task(1, b"x", version=older), small.task(2, b"y", (4,), version=older), small.task(3, b"z")
    old, begun, good = small.fill(root, make_recorder(), *tasks)
    sent = send(root)
    assert {item.key for item in sent.items} == {good, unfinished}
    why = {
        finished: f"stages/train/{finished}/manifest.json: is of another version (record.accuracy: missing)",
        old: f"stages/train/{old}: is of version {older} of train, and this tdcompress reads version {older + 1}",
        begun: f"stages/train/{begun}.partial: is of version {older} of train",
    }
    assert all(any(said.startswith(start) for said in sent.of_no_use) for start in why.values())
    with pytest.raises(UserError, match=rf"nothing to export: .*{old}: is of version {older}"):
        send(root, "more", named(places(root), old))
    with monkeypatch.context() as careless:  # as another version would
        careless.setattr("tdcompress.transfer.export.of_no_use", lambda *arguments: None)
        sent = send(root, "all")
    there = tmp_path / "there"
    done = {entry.item.key: entry for entry in import_files(there, sent.files)}
    assert {key for key, entry in done.items() if entry.outcome == "imported"} == {good, unfinished}
    assert all(done[key].outcome == "of no use" and done[key].why.startswith(start) for key, start in why.items())
    assert {path.name for path in (there / "stages" / "train").iterdir()} == {good, f"{unfinished}.partial"}


def test_what_a_process_works_on_is_left_alone(made, send, tmp_path):
    root, _, unfinished = made
    sent = send(root)
    with hold(root / ".locks" / f"train-{unfinished}", "a training"):
        with pytest.raises(BusyError, match=f"train {unfinished} is in use by process"):
            send(root, "more")
        with pytest.raises(BusyError):
            import_files(root, sent.files)
    assert not list(tmp_path.glob("more*"))


def test_a_damaged_artefact_is_not_exported(made, send):
    (made[0] / "stages" / "train" / made[1] / "metrics.jsonl").write_text("other")
    with pytest.raises(ArtifactError, match="is damaged"):
        send(made[0])


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(made, send, tmp_path):
    root, _, unfinished = made
    folder = root / "stages" / "train" / f"{unfinished}.partial" / "scratch" / "checkpoints"
    (folder / "step-000000008.safetensors").write_bytes(b"cut off")
    import_files(tmp_path / "there", send(root).files)
    assert sorted(p.name for p in (tmp_path / "there").rglob("step-*")) == ["step-000000004.json", "step-000000004.safetensors"]
    shutil.rmtree(folder)
    assert [item.key for item in send(root, "more").items] == [made[1]]  # without a checkpoint there is nothing to lose


def test_where_there_is_no_room_for_all_the_first_go(made, send):
    root, finished, unfinished = made
    sent = send(root, max_parts=3)
    assert [item.key for item in sent.items] == [finished]
    assert [item.key for item in sent.left_out] == [unfinished]
    assert len(sent.files) <= 3
    with pytest.raises(UserError, match="raise --part-size or --max-parts"):
        send(root, "more", max_parts=1)
    with pytest.raises(UserError, match="are too few"):
        export_items(root, places(root), root / "x", 2000)
    with pytest.raises(UserError, match="nothing to export"):
        send(root, "more", wanted=[])


def test_keys_are_named_by_their_beginning(made):
    there = places(made[0])
    assert [place.finished for place in there] == [True, False]
    assert [place.key for place in named(there, made[2][:6])] == [made[2]]
    for wrong in ("", "zz", "0" * 16):
        with pytest.raises(UserError, match="artifacts list"):
            named(there, wrong)


def test_the_list_says_what_is_there(made, tmp_path):
    root, finished, unfinished = made
    assert [row[:4] for row in artifacts_table(root).rows] == [
        ("train", finished, "finished", "mlp none seed 1 50.00%"),
        ("train", unfinished, "step 8", "mlp none seed 2"),
    ]
    assert "none yet" in artifacts_table(tmp_path / "nowhere").notes[0]


def test_a_vocabulary_travels_once_and_before_the_trainings_on_it(small, make_recorder, tmp_path):
    def write(settings, work):
        (work.folder / "vocabulary.model").write_bytes(b"pieces")
        return VocabularyRecord(pieces=1, bytes=6)

    words, other = (
        Task(
            stage=Stage(name="vocabulary", version=VERSIONS["vocabulary"], settings=dict, run=write),
            settings={"size": size},
            title="vocabulary",
        )
        for size in (1, 2)
    )
    done, begun = (replace(task, inputs={"vocabulary": words}) for task in (small.task(1, b"x"), small.task(2, b"y", (4,))))
    here, there = tmp_path / "here", tmp_path / "there"
    small.fill(here, make_recorder(), done, begun, other)
    wanted = [place for place in places(here) if place.stage == "train"]
    sent = export_items(here, wanted, tmp_path / "out", 1 << 20)
    expected = [("vocabulary", words.key), ("train", done.key), ("train", begun.key)]
    assert [(item.stage, item.key) for item in sent.items] == expected
    import_files(there, sent.files)
    assert FolderStore(there).keys("vocabulary") == [words.key]
    (alone,) = [place for place in wanted if place.key == begun.key]
    assert [item.stage for item in export_items(here, [alone], tmp_path / "one", 1 << 20).items] == ["vocabulary", "train"]
    shutil.rmtree(here / "stages" / "vocabulary" / words.key)
    assert [item.stage for item in export_items(here, [alone], tmp_path / "none", 1 << 20).items] == ["train"]
