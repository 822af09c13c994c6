"""A shop to attack: a web server that redirects, refuses verbs and may have an injection, and names that lead to it.
Counterpart: test_attacks.py runs attack files against it, from the other end of the wire."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from .netns import Namespace
from .processes import wait_until

_SERVER = """
import sqlite3, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

DATA = sqlite3.connect(":memory:", check_same_thread=False)
DATA.executescript("create table numbers (id integer, name text); insert into numbers values (1, 'one'), (2, 'two');")
READS = sys.argv[3] == "sql"

class Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "Apache/2.4.57 (Debian)", ""
    protocol_version = "HTTP/1.1"

    def answer(self, status, body="", **headers):
        self.send_response(status)
        for name, value in {"Content-Length": len(body.encode()), "Content-Type": "text/html", **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body.encode())

    def do_GET(self):
        asked = urlsplit(self.path)
        number = parse_qs(asked.query).get("number_id", [""])[0]
        if number and READS:
            try:
                rows = DATA.execute("select name from numbers where id = " + number).fetchall()
            except sqlite3.Error as error:
                return self.answer(200, "SQLite error: " + str(error))
            return self.answer(200, "<p>" + ", ".join(str(one) for row in rows for one in row) + "</p>")
        if number:
            return self.answer(200, "<p>numbers</p>")
        if asked.path == "/":
            return self.answer(301, "moved", Location="/shop", Set_Cookie="sid=7; Secure; HttpOnly")
        return self.answer(404, "nothing here")

    do_HEAD = do_GET

    def __getattr__(self, name):
        if name.startswith("do_"):
            return lambda: self.answer(405, "Error 405 (Method Not Allowed)!!1")
        raise AttributeError(name)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler)
print("listens", flush=True)
server.serve_forever()
"""


def open_shop(space: Namespace, address: str, port: int, *, injectable: bool = False) -> None:
    """A web server at `address`, once this returns; ended with the namespace."""
    words = [sys.executable, "-c", _SERVER, address, str(port), "sql" if injectable else "safe"]
    process = space.start(words, name=f"shop-{port}")
    wait_until(f"a shop at {port}", lambda: "listens" in process.stdout)


@contextmanager
def names(space: Namespace, hosts: Mapping[str, str]) -> Iterator[None]:
    """Inside, programs run in the namespace know these names and ask no name server (`ip netns exec`, /etc/netns)."""
    folder = Path("/etc/netns") / space.name
    folder.mkdir(parents=True)
    try:
        (folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in hosts.items()))
        (folder / "resolv.conf").write_text("")
        yield
    finally:
        shutil.rmtree(folder)
