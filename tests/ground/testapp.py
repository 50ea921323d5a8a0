"""The tests' app: does what a test asks of it. Standard library only."""

import itertools
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

HEALTHY = threading.Event()
HEALTHY.set()
HUNG = threading.Event()
MODE = {}
COUNTER = itertools.count(1)


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        if HUNG.is_set():
            threading.Event().wait()
        if url.path == "/mode":
            MODE.clear()
            MODE.update(query)
        elif MODE and self.headers.get("User-Agent") != "NextDeploy-Edge-Probe":
            time.sleep(float(MODE.get("ms", "0")) / 1000)
            if "cut" in MODE or "garbage" in MODE:
                cut = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it"
                self.wfile.write(cut if "cut" in MODE else b"\x00\x01\x02 garbage\r\n\r\n")
                self.close_connection = True
                return
        if url.path.startswith("/once/"):
            with open(os.path.join(os.environ["POSTS"], os.path.basename(url.path)), "a") as file:
                file.write("x")
        if url.path == "/exit":
            os._exit(int(query.get("code", "1")))
        if url.path == "/hang":
            HUNG.set()
        if url.path == "/sick":
            HEALTHY.clear()
        if url.path == "/slow":
            time.sleep(float(query.get("ms", "100")) / 1000)
        if url.path == "/print":
            for number in range(int(query.get("lines", "1"))):
                print(f"line {number}", flush=True)
        time.sleep(float(os.environ.get("SLOW_MS", "0")) / 1000)
        every = int(os.environ.get("FAIL_EVERY", "0"))
        unlucky = bool(every) and url.path == "/" and next(COUNTER) % every == 0
        status = 500 if unlucky or url.path == "/fail" or (url.path == "/health" and not HEALTHY.is_set()) else 200
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else b""
        self.reply(
            status,
            {
                "path": self.path,
                "method": self.command,
                "pid": os.getpid(),
                "host": os.uname().nodename,
                "version": os.environ.get("VERSION", "1"),
                "headers": dict(self.headers),
                "body": body.decode("latin-1"),
            },
        )

    do_POST = do_PUT = do_DELETE = do_GET

    def reply(self, status, value):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Quiet."""


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def main():
    time.sleep(float(os.environ.get("START_SECONDS", "0")))
    if os.environ.get("EXIT_AT_START"):
        print("this version does not work", file=sys.stderr, flush=True)
        sys.exit(int(os.environ["EXIT_AT_START"]))
    server = Server(("0.0.0.0", int(os.environ.get("PORT", "8000"))), App)
    if os.environ.get("IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("ready", flush=True)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main()
