"""A small shop, standard library only: what a real app does to its platform. Sessions on disk, a slow route, a failing
one, a WebSocket one, logs in several formats, an orderly end on SIGTERM."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import sys
import threading
import time
from http.cookies import SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import websocket

SESSIONS = Path(os.environ.get("SESSIONS", "/tmp/shop-sessions"))
GOODS = {"apple": 120, "pear": 140, "plum": 90}
log = logging.getLogger("shop")


class Shop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "shop"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        route = getattr(self, "get_" + (url.path.strip("/").replace("/", "_") or "home"), None)
        began = time.monotonic()
        try:
            if route is None:
                self.answer(404, {"error": "there is no such page"})
            else:
                route(query)
        except BrokenPipeError:
            return
        except Exception:
            log.exception("GET %s failed", url.path)
            self.answer(500, {"error": "this is logged with its traceback"})
        line = {"level": "info", "path": url.path, "ms": round((time.monotonic() - began) * 1000, 2)}
        print(json.dumps({**line, "request_id": self.headers.get("X-Request-Id", "")}), flush=True)

    def do_POST(self) -> None:
        length = min(int(self.headers.get("Content-Length") or 0), 1 << 20)
        body = json.loads(self.rfile.read(length) or b"{}")
        if urlsplit(self.path).path != "/cart" or body.get("item") not in GOODS:
            self.answer(404, {"error": "there is no such thing"})
            return
        session, cart = self.session()
        cart[body["item"]] = cart.get(body["item"], 0) + 1
        self.save(session, cart)
        print(f'level=info msg="added to cart" item={body["item"]} session={session[:6]}', flush=True)
        self.answer(200, self.bill(cart), session=session)

    def get_home(self, query: dict[str, str]) -> None:
        where = {"pid": os.getpid(), "host": os.uname().nodename, "version": os.environ.get("VERSION", "1")}
        self.answer(200, {"shop": "open", "goods": GOODS, **where})

    def get_healthz(self, query: dict[str, str]) -> None:
        self.answer(200, {"status": "ok"})

    def get_cart(self, query: dict[str, str]) -> None:
        session, cart = self.session()
        self.answer(200, self.bill(cart), session=session)

    def get_slow(self, query: dict[str, str]) -> None:
        time.sleep(min(float(query.get("seconds", "2")), 30))
        print("[warning] that took a while", file=sys.stderr, flush=True)
        self.answer(200, {"waited": True})

    def get_fail(self, query: dict[str, str]) -> None:
        prices = [GOODS[name] for name in ("apple", "quince")]
        self.answer(200, {"sum": sum(prices)})

    def get_headers(self, query: dict[str, str]) -> None:
        self.answer(200, dict(self.headers))

    def get_ws(self, query: dict[str, str]) -> None:
        """Says everything back, and the time at the start."""
        self.close_connection = True
        if websocket.accept(self):
            websocket.echo(self, greeting=time.strftime("%H:%M:%S"))

    # -- small things ------------------------------------------------------------------------------

    def session(self) -> tuple[str, dict[str, int]]:
        cookie = SimpleCookie(self.headers.get("Cookie", "")).get("session")
        session = cookie.value if cookie and cookie.value.isalnum() else secrets.token_hex(16)
        path = SESSIONS / f"{session}.json"
        return session, json.loads(path.read_text()) if path.exists() else {}

    def save(self, session: str, cart: dict[str, int]) -> None:
        path = SESSIONS / f"{session}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(cart))
        temporary.rename(path)

    def bill(self, cart: dict[str, int]) -> dict[str, object]:
        return {"cart": cart, "total": sum(GOODS[item] * count for item, count in cart.items())}

    def answer(self, status: int, value: object, session: str = "") -> None:
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if session:
            self.send_header("Set-Cookie", f"session={session}; HttpOnly; SameSite=Lax; Path=/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: do_GET writes its own line."""


class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128
    block_on_close = False


def main() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    SESSIONS.mkdir(parents=True, exist_ok=True)
    port = int(os.environ.get("PORT", "8080"))
    server = Server(("0.0.0.0", port), Shop)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    log.info("the shop is open on port %d", port)
    server.serve_forever(poll_interval=0.1)
    log.info("the shop is closed")


if __name__ == "__main__":
    main()
