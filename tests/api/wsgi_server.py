"""One process that serves the site by WSGI with so many threads as servers have; says its port. Rates come from
API_RATES, as JSON."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from django.conf import settings
from django.core.wsgi import get_wsgi_application


class Server(WSGIServer):
    request_queue_size = 256
    threads = ThreadPoolExecutor(16)

    def process_request(self, request, client_address):
        self.threads.submit(self.answer, request, client_address)

    def answer(self, request, client_address):
        self.finish_request(request, client_address)
        self.shutdown_request(request)


class Quiet(WSGIRequestHandler):
    def log_message(self, *args):
        pass


if __name__ == "__main__":
    settings.LLM_WRAPPER_API_RATES = json.loads(os.environ.get("API_RATES", "{}"))
    server = make_server("127.0.0.1", 0, get_wsgi_application(), Server, Quiet)
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
