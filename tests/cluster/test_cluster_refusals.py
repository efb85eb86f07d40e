"""What Ray says when it does not connect, or a node lacks a package, in one line of ours."""

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
from ray.exceptions import RaySystemError

from tdcompress.cluster import driver
from tdcompress.errors import UnsupportedError

MISMATCH = """Version mismatch: The cluster was started with:
    Ray: 2.60.0
    Python: 3.11.7
This process on node 10.0.0.2:6379 was started with:
    Ray: 2.50.0
    Python: 3.12.1
"""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError(MISMATCH),
            "--cluster ray: the cluster has Ray 2.60.0 and Python 3.11.7, this process Ray 2.50.0 and Python 3.12.1; "
            "install the same versions on all machines",
        ),
        (
            ConnectionError("Could not find any running Ray instance. Please specify\nthe one to connect to."),
            "--cluster ray: no Ray cluster answers (Could not find any running Ray instance); start one with: ray start --head",
        ),
        (
            RaySystemError("Token authentication is enabled but no authentication token was found"),
            "it asks for a token",
        ),
    ],
)
def test_a_cluster_that_does_not_take_this_process_is_told_in_one_line(monkeypatch, error, said):
    def refuse(*arguments, **options):
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(driver.ray, "init", refuse)
    with pytest.raises(UnsupportedError) as raised, driver.connected("ray", "artifacts", None, print):
        pass
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_node_without_a_package_is_told_what_to_install():
    said = str(driver._lacking(RuntimeError("ray::train failed:\nModuleNotFoundError: No module named 'tdcompress.cluster'")))
    assert said.startswith("a node of the cluster has no tdcompress.cluster: pip install '.[train,cluster]'")
    assert driver._lacking(RuntimeError("ray::train failed")) is None
