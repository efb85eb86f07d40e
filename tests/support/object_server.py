"""An S3-compatible server in this process: moto's, one request at a time, since two puts of moto's are not atomic."""

from threading import Lock, Thread

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

CONDITIONS = ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH")


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args):
        pass


class ObjectServer:
    """The server, started; `stop` it.

    Attributes:
        ignores_conditions: puts hold whatever is asked of them, as on old servers.
        before: called with method and path before each request; what it raises, the client sees as an error of the server.
    """

    def __init__(self):
        self.ignores_conditions = False
        self.before = lambda method, path: None
        self._moto, self._lock = DomainDispatcherApplication(create_backend_app), Lock()
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=_Quiet)
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def environment(self):
        """What s3fs needs to know of it."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._server.server_port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ, start_response):
        self.before(environ["REQUEST_METHOD"], environ["PATH_INFO"])
        if self.ignores_conditions and environ["REQUEST_METHOD"] == "PUT":
            for name in CONDITIONS:
                environ.pop(name, None)
        with self._lock:
            return list(self._moto(environ, start_response))
