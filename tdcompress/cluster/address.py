"""Whether a cluster answers at an address and takes this process, and why not: Ray itself tries for long, and says less."""

import os
import re
import socket
from collections.abc import Sequence

from tdcompress.errors import UnsupportedError, one_line

_SECONDS = 10.0
_COLOUR = re.compile(r"\x1b\[\d+m")
_VERSIONS = re.compile(r"Ray: (\S+)\s+Python: (\S+)")
_CLIENT = "ray://"
# what each kind of port answers to whoever it takes
_TO_CLIENTS, _TO_NODES = "/ray.rpc.RayletDriver/ClusterInfo", "/ray.rpc.NodeInfoGcsService/CheckAlive"
_ADVICE = "set RAY_AUTH_MODE=token, and have the cluster's ~/.ray/auth_token on this machine"


def knock(address: str) -> None:
    """Ask at the port of a cluster whether it takes this process, where the address names one.

    Args:
        address: "ray" = the one that ``RAY_ADDRESS`` names, if any; or "ray://host:port".

    Raises:
        OSError: nobody listens there.
        UnsupportedError: it asks for a token, and this process has none or another.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "ray" else address
    target = named.removeprefix(_CLIENT)
    host, colon, port = target.rpartition(":")
    if not (colon and port.isdigit()):
        return
    socket.create_connection((host, int(port)), timeout=_SECONDS).close()
    token = _own_token()
    if _is_refused(target, _TO_CLIENTS if named.startswith(_CLIENT) else _TO_NODES, token):
        another = "it does not take this machine's token: copy its ~/.ray/auth_token here"
        raise UnsupportedError(f"--cluster {address}: {another if token else f'it asks for a token: {_ADVICE}'}")


def refusal(error: Exception, address: str) -> str:
    """Why Ray does not connect, and what to do, in one line.

    Args:
        error: what it raised.
        address: see ``knock``.
    """
    versions = _VERSIONS.findall(str(error))
    if len(versions) == 2:
        there, here = (f"Ray {of_ray} and Python {of_python}" for of_ray, of_python in versions)
        return f"the cluster has {there}, this process {here}; install the same versions on all machines"
    if "authentication" in str(error).lower():
        return f"it asks for a token ({first_sentence(error)}): {_ADVICE}"
    advice = "start one with: ray start --head" if address == "ray" else "is its head running, and that port open?"
    return f"no Ray cluster answers ({first_sentence(error)}); {advice}"


def first_sentence(error: BaseException) -> str:
    """The first sentence of what Ray says: it says a lot, in colours."""
    return one_line(_COLOUR.sub("", str(error)) or error).partition(". ")[0].rstrip(".")


def _own_token() -> Sequence[tuple[str, str]]:
    """What Ray sends along with each request of this process: nothing where it uses no token, or has never heard of any."""
    try:
        from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    except ImportError:
        return ()
    return tuple((name.lower(), value) for name, value in get_auth_headers_if_auth_enabled({}).items())


def _is_refused(target: str, method: str, token: Sequence[tuple[str, str]]) -> bool:
    """Whether a port wants another token; what else it may have against a request, Ray finds out."""
    import grpc

    with grpc.insecure_channel(target) as channel:
        try:
            channel.unary_unary(method)(b"", timeout=_SECONDS, metadata=token)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNAUTHENTICATED
    return False
