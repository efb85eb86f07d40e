"""Objects, and the conditions that machines rely on."""

import pytest

from tdcompress.errors import StoreError, UserError
from tdcompress.stores.bucket import Bucket
from tdcompress.stores.folder import FolderStore
from tdcompress.stores.place import is_url, open_store


def test_an_object_is_made_once_and_replaced_by_who_has_read_it(bucket):
    assert bucket.read("a") is None
    first = bucket.create("a", b"1")
    assert first is not None
    assert bucket.create("a", b"2") is None
    found = bucket.read("a")
    assert (found.data, found.etag) == (b"1", first)
    assert 0 <= found.age < 60
    second = bucket.replace("a", b"3", first)
    assert second is not None
    assert bucket.replace("a", b"4", first) is None
    assert bucket.read("a").data == b"3"
    assert bucket.replace("never there", b"5", first) is None
    assert bucket.read("never there") is None


def test_files_and_listings(bucket, tmp_path):
    (tmp_path / "file").write_bytes(bytes(1000))
    bucket.send(tmp_path / "file", "stages/train/x")
    bucket.put("stages/prune/y", b"")
    assert bucket.folders("stages") == ["prune", "train"]
    assert bucket.names("stages/train") == ["stages/train/x"]
    assert (bucket.names("nothing"), bucket.folders("nothing")) == ([], [])
    assert bucket.fetch("stages/train/x", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == bytes(1000)
    assert not bucket.fetch("stages/train/z", tmp_path / "none")
    bucket.remove(["stages/train/x", "stages/train/x"])
    assert bucket.names("stages/train") == []
    with pytest.raises(FileNotFoundError):
        bucket.send(tmp_path / "gone", "stages/train/x")


def test_a_server_that_keeps_to_conditions_passes_and_nothing_is_left(bucket):
    bucket.require_conditions()
    assert bucket.names("probe") == []


def test_a_server_that_ignores_conditions_is_refused_before_anything_is_claimed(reachable, machine):
    reachable.ignores_conditions = True
    store = machine("a")
    with pytest.raises(UserError, match="ignores conditional puts") as caught, store.claim("run-x", "the run x"):
        raise AssertionError("claimed")
    assert "\n" not in str(caught.value)
    assert store.bucket.names("claims") == store.bucket.names("probe") == []


def test_what_is_no_bucket_is_refused_in_one_line(reachable, tmp_path):
    for wrong in ("memory://a/b", "s3://", "https://example.org/x"):
        with pytest.raises(UserError, match="s3://bucket/prefix"):
            Bucket(wrong)
    asked = (
        lambda bucket: bucket.create("a", b""),
        lambda bucket: bucket.read("a"),  # S3 says of an object's head alone that it is not there
        lambda bucket: bucket.folders("runs"),
        lambda bucket: bucket.fetch("a", tmp_path / "a"),
    )
    for ask in asked:
        with pytest.raises(
            StoreError, match=r"^s3://no-such-bucket/x: there is no bucket no-such-bucket at this server; make it"
        ):
            ask(Bucket("s3://no-such-bucket/x"))
    assert isinstance(open_store(str(tmp_path)), FolderStore)
    assert is_url("s3://a/b")
    assert not is_url(tmp_path)
    assert not is_url("artifacts")


def test_a_server_that_is_not_there_is_an_error_in_one_line(monkeypatch, reachable):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with pytest.raises(StoreError) as caught:
        Bucket("s3://bucket/x").read("a")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith('s3://bucket/x: Could not connect to the endpoint URL: "http://127.0.0.1:9/')
    assert str(caught.value).endswith("; is AWS_ENDPOINT_URL right, and that server up?")
