"""One process that serves the site by WSGI; says its port. Rates come from API_RATES, as JSON."""

import json
import os
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 256


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


if __name__ == "__main__":
    settings.LLM_WRAPPER_API_RATES = json.loads(os.environ.get("API_RATES", "{}"))
    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
    print(server.server_port, flush=True)
    server.serve_forever()
