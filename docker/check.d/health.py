"""Runs the image's health check against small servers, and compares what it says."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time

PROGRAM = sys.argv[1]


class Answer(http.server.BaseHTTPRequestHandler):
    """Answers GET /health as the server's `status` says; `None` takes its time."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status = self.server.status if self.path == "/health" else 404
        if status is None:
            time.sleep(6)
            return
        body = b'{"status":"%d"}' % status
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def check(name, status, listen, expected_code, expected_text):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    server.daemon_threads = True
    server.status = status
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    if status == "nobody":
        server.shutdown()
        server.server_close()
    # As in the image: nothing but bash and the address that the server was told to listen at.
    environment = {"PATH": os.environ["PATH"], "FORESHOCK_HTTP__LISTEN": f"{listen}:{port}"}
    done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=10)
    text = done.stdout.strip().replace(str(port), "PORT")
    if (done.returncode, text, done.stderr) != (expected_code, expected_text, ""):
        sys.exit(f"{name}: exit status {done.returncode}, {done.stdout!r}, {done.stderr!r}; "
                 f"expected {expected_code} and {expected_text!r}")
    print(f"{name}: exit status {done.returncode}, {text}")


socket.setdefaulttimeout(10)
check("well", 200, "0.0.0.0", 0, '200 {"status":"200"}')
check("not well", 503, "0.0.0.0", 1, '503 {"status":"503"}')
check("well, listening at an IPv6 address", 200, "[::]", 0, '200 {"status":"200"}')
check("nobody listens", "nobody", "0.0.0.0", 1, "nothing listens on port PORT")
check("no answer", None, "0.0.0.0", 1, "no answer from port PORT")
