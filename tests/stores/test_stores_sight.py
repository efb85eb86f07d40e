"""Whether a worker of a cluster sees the driver's bucket: by the run that the driver has claimed there."""

import pytest

from tdcompress.cluster.sight import sighted
from tdcompress.errors import UserError
from tdcompress.runs.unfinished import claim_run


@pytest.fixture(autouse=True)
def worker(url, tmp_path, monkeypatch):
    """This process is a worker: its cache is another than the driver's."""
    monkeypatch.setenv("TDCOMPRESS_CACHE", str(tmp_path / "worker"))


def test_a_bucket_in_which_the_run_is_claimed_is_the_drivers(url, machine, tmp_path):
    with claim_run(machine("driver"), "run"):
        store = sighted(url, "run")
    assert store.root.is_relative_to(tmp_path / "worker")


def test_a_bucket_in_which_the_run_is_free_is_another_one(url):
    with pytest.raises(UserError, match=r"^the store s3://.* of this run is not seen here, or its locks are not: Ray has to be"):
        sighted(url, "run")


def test_a_bucket_that_cannot_be_reached_is_not_seen(url):
    missing = url.replace("s3://", "s3://no-such-")
    with pytest.raises(UserError, match=r"^the store s3://no-such-.* of this run is not seen here \(.*\): Ray has to be"):
        sighted(missing, "run")
