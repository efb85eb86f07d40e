"""An S3-compatible server, a bucket for each test, and stores of machines that share nothing else."""

import itertools

import pytest

from tdcompress.stores.claims import Pace

FAST = Pace(beat=0.2, stale=60.0, keep=0.1)  # a busy machine loses no claim


@pytest.fixture(scope="session")
def server():
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install '.[objects]'")
    pytest.importorskip("moto.server", reason="moto[server] is not installed: pip install '.[objects]'")
    from object_server import ObjectServer

    started = ObjectServer()
    yield started
    started.stop()


@pytest.fixture
def reachable(server, monkeypatch):
    """The server, as the environment of this process names it."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    server.ignores_conditions, server.before = False, lambda method, path: None


_numbers = itertools.count()


@pytest.fixture
def url(reachable):
    """A bucket of its own, and a prefix in it."""
    import fsspec

    name = f"bucket-{next(_numbers)}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}/some/artifacts"


@pytest.fixture
def bucket(url):
    from tdcompress.stores.bucket import Bucket

    return Bucket(url)


@pytest.fixture
def machine(url, tmp_path):
    """``machine("a")``: the store as another machine sees it, with a cache of its own."""
    from tdcompress.stores.objects import ObjectStore

    return lambda name, pace=FAST: ObjectStore(url, cache=tmp_path / name, pace=pace)
