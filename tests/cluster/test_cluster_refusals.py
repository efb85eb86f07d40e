"""What Ray says when it does not connect, or a node lacks a package, in one line of ours."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

pytest.importorskip("ray", reason="Ray is not installed: pip install '.[cluster]'")
import grpc
import ray
from ray.exceptions import RaySystemError

from tdcompress.cluster import address, driver
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


@contextmanager
def asks_for(token):
    """A port that takes requests with this token alone, as Ray's do; gives its address and the methods that were asked for."""
    asked = []

    def answer(request, context):
        if ("authorization", token) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        context.abort(grpc.StatusCode.NOT_FOUND, "")

    class Any(grpc.GenericRpcHandler):
        def service(self, details):
            asked.append(details.method)
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(max_workers=1), handlers=[Any()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}", asked
    server.stop(None).wait()


@pytest.mark.parametrize("given", ["ray", "ray://"])
def test_a_cluster_that_asks_for_a_token_says_so_at_once(monkeypatch, given):
    """Ray tries for 20 to 30 seconds, and then says that nobody answers."""
    with asks_for("Bearer right") as (target, asked):
        named = given if given == "ray" else given + target
        monkeypatch.setenv("RAY_ADDRESS", target)
        for own, said in (
            ((), "it asks for a token: set RAY_AUTH_MODE=token"),
            ((("authorization", "Bearer wrong"),), "copy its ~"),
        ):
            monkeypatch.setattr(address, "_own_token", lambda own=own: own)
            with (
                pytest.raises(UnsupportedError, match=f"--cluster {named}: it .*") as raised,
                driver.connected(named, "a", None, print),
            ):
                pass
            assert said in str(raised.value)
        monkeypatch.setattr(address, "_own_token", lambda: (("authorization", "Bearer right"),))
        address.knock(named)
    assert {method.split("/")[1] for method in asked} == {
        "ray.rpc.NodeInfoGcsService" if given == "ray" else "ray.rpc.RayletDriver"
    }


def test_a_process_that_uses_no_token_sends_none(monkeypatch):
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert address._own_token() == ()


def test_what_nodes_complain_of_is_not_among_the_lines_of_a_run(monkeypatch, capsys):
    monkeypatch.setattr(driver, "knock", lambda named: None)
    monkeypatch.setattr(driver.ray, "init", lambda *arguments, **options: None)
    monkeypatch.setattr(driver.ray, "nodes", list)
    monkeypatch.setattr(ray._private.worker, "_worker_logs_enabled", True)  # as another Ray may no longer have it
    complaint = {"lines": ["A worker died"], "pid": "raylet", "is_err": False}
    ray._private.worker.print_to_stdstream(complaint, ignore_prefix=False)
    assert "A worker died" in capsys.readouterr().out  # Ray's way to print them
    with driver.connected("ray", "artifacts", None, lambda line: None):
        ray._private.worker.print_to_stdstream({**complaint, "lines": ["Another died"]}, ignore_prefix=False)
    assert capsys.readouterr().out == ""
