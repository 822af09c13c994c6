"""A Chef server of a few lines: it checks signatures 1.0, 1.1 and 1.3 and serves what a test puts there.
Counterpart: inventory/chef.py reads it; the checks are written from the protocol, not from the code that signs."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from .http import HttpHandler, HttpServer

USER = "vedette"
TOLERANCE = 15 * 60
"""Seconds that a timestamp may be off."""
MOST_BODY = 1_000_000


@dataclass(frozen=True)
class Request:
    """One request as it was answered; status 0 = not at all."""

    method: str
    path: str
    query: dict[str, list[str]]
    user: str
    version: str
    status: int


@cache
def _key(bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, bits)


def make_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key, the same for the length of the run: making one costs a tenth of a second."""
    return _key(bits)


def pem(key: rsa.RSAPrivateKey) -> str:
    """The private key as Chef hands it out."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    ).decode()


class ChefServer:
    """One organization, from `with` to its end; `url`, `user` and `key_pem` are what a client needs.

    What is there: `set_role`, `set_environment`, `set_node`, `set_item`, `set_policy` put it there whole, or again; it
    is removed from the mappings `roles`, `nodes` and so on. It can be told to do badly, at one path and below
    (`"/search"`) or everywhere, until `recover()`: `fail_with(403)`, `answer(b"<html>")`, `slow()` and `drip()` (no
    end of it), `cut()` (in the midst). ahead: seconds that its clock is. requests: what was asked, and how answered.
    hidden: nodes that a search may not show.
    inside: `Namespace.inside`, for an address in a network namespace. bits: of the key; short ones are quicker to read.
    """

    def __init__(
        self,
        organization: str = "shop",
        *,
        address: str = "127.0.0.1",
        context: ssl.SSLContext | None = None,
        inside: Callable[[Callable[[], Any]], Any] = lambda call: call(),
        bits: int = 2048,
    ) -> None:
        self.organization = organization
        self.address = address
        self.port = 0
        self.user = USER
        self.key = make_key(bits)
        self.ahead = 0.0
        self.requests: list[Request] = []
        self.users: dict[str, rsa.RSAPublicKey] = {USER: self.key.public_key()}
        self.roles: dict[str, dict[str, Any]] = {}
        self.environments: dict[str, dict[str, Any]] = {"_default": environment("_default")}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.hidden: set[str] = set()
        self.bags: dict[str, dict[str, dict[str, Any]]] = {}
        self.groups: dict[str, dict[str, dict[str, Any]]] = {}
        self._context = context
        self._inside = inside
        self._lock = threading.Lock()
        self._troubles: dict[str, Callable[[_Handler], None]] = {}
        self._recovered = threading.Event()
        self._server: HttpServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """Of the organization."""
        scheme = "https" if self._context else "http"
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{scheme}://{host}:{self.port}/organizations/{self.organization}"

    @property
    def key_pem(self) -> str:
        """The private key of `user`."""
        return pem(self.key)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen (again, on the same port)."""
        chef = self

        class Handler(_Handler):
            part = chef

        self._recovered.clear()
        self._server = self._inside(lambda: HttpServer((self.address, self.port), Handler, self._context))
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="chef", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Gone: connections are refused, and those that are open end."""
        if self._server is None or self._thread is None:
            return
        self._recovered.set()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(10)
        self._server = self._thread = None

    # ------------------------------------------------------------------------------ what is there

    def set_role(self, name: str, **said: Any) -> None:
        """A role: run_list, env_run_lists, default_attributes, override_attributes."""
        self._set(self.roles, name, {"chef_type": "role", "json_class": "Chef::Role", "run_list": [], **said})

    def set_environment(self, name: str, **said: Any) -> None:
        """An environment: default_attributes, override_attributes."""
        self._set(self.environments, name, {**environment(name), **said})

    def set_node(self, name: str, **said: Any) -> None:
        """A node: run_list, chef_environment or policy_name and policy_group, normal, automatic, default, override."""
        node = {"chef_type": "node", "json_class": "Chef::Node", "chef_environment": "_default", "run_list": []}
        parts: dict[str, Any] = {"default": {}, "normal": {}, "override": {}, "automatic": {}}
        self._set(self.nodes, name, {**node, **parts, **said})

    def set_item(self, bag: str, item: str, **said: Any) -> None:
        """An item of a data bag."""
        with self._lock:
            self.bags.setdefault(bag, {})[item] = {"id": item, **said}

    def set_policy(self, group: str, name: str, **said: Any) -> None:
        """The policy of a group: default_attributes, override_attributes."""
        lock = {"revision_id": "0" * 64, "run_list": ["recipe[base::default]"], "cookbook_locks": {}}
        self._set(self.groups.setdefault(group, {}), name, {**lock, "named_run_lists": {}, **said})

    def _set(self, things: dict[str, Any], name: str, thing: dict[str, Any]) -> None:
        with self._lock:
            things[name] = {"name": name, **thing}

    # ------------------------------------------------------------------------------ trouble

    def fail_with(self, status: int, path: str = "", *, headers: dict[str, str] | None = None, times: int = 0) -> None:
        """This status for `path` and below ("" = all). times: so often, 0 = until `recover`."""
        left = [times]

        def fail(handler: _Handler) -> None:
            if times and not left[0]:
                self._serve(handler)
                return
            left[0] -= 1
            handler.send(status, {"error": [f"as the test wants it: {status}"]}, headers)

        self._troubles[path] = fail

    def answer(self, content: bytes, path: str = "") -> None:
        """200 with these bytes."""
        self._troubles[path] = lambda handler: handler.send(200, content)

    def slow(self, path: str = "") -> None:
        """No answer until `recover`."""
        self._troubles[path] = lambda handler: handler.hang(self._recovered)

    def drip(self, path: str = "") -> None:
        """A byte now and then, never the end, until `recover`."""
        self._troubles[path] = lambda handler: handler.drip(self._recovered)

    def cut(self, path: str = "") -> None:
        """The connection ends in the midst of the answer."""
        self._troubles[path] = lambda handler: handler.cut()

    def recover(self) -> None:
        """Serve again, and let go of what hangs."""
        self._troubles.clear()
        self._recovered.set()
        self._recovered = threading.Event()

    # ------------------------------------------------------------------------------ serving

    def take(self, handler: _Handler) -> None:
        """Answer one request."""
        path = _below(handler.path, self.organization) or ""
        matching = [one for one in self._troubles if path == one or path.startswith(one.rstrip("/") + "/") or not one]
        serve = self._troubles[max(matching, key=len)] if matching else self._serve
        serve(handler)

    def note(self, handler: _Handler, status: int) -> None:
        """Write a request down, before its answer is out: whoever has that finds it in `requests`."""
        version = handler.headers.get("X-Ops-Sign", "").partition("version=")[2].strip(";")
        path = _below(handler.path, self.organization) or ""
        query = parse_qs(urlsplit(handler.path).query)
        user = handler.headers.get("X-Ops-Userid", "")
        with self._lock:
            self.requests.append(Request(handler.command, path, query, user, version, status))

    def _serve(self, handler: _Handler) -> None:
        handler.send(*self._answer(handler))

    def _answer(self, handler: _Handler) -> tuple[int, Any]:
        user = handler.headers.get("X-Ops-Userid", "")
        if len(handler.body) > MOST_BODY:
            return 413, {"error": ["JSON must be no more than 1000000 bytes."]}
        headers = {name.lower(): value for name, value in handler.headers.items()}
        if user not in self.users:
            return 401, {"error": [f"Failed to authenticate as '{user}'."]}
        now = time.time() + self.ahead
        wrong = faults(handler.command, handler.path, headers, handler.body, self.users[user], now)
        if wrong:
            return 401, {"error": [f"Failed to authenticate as '{user}': {wrong}"]}
        path = _below(handler.path, self.organization)
        with self._lock:
            found = None if path is None else self._find(handler.command, path, handler)
        return (404, {"error": [f"Cannot find {path}"]}) if found is None else (200, found)

    def _find(self, method: str, path: str, handler: _Handler) -> Any:
        kinds: dict[str, dict[str, Any]] = {
            "roles": self.roles,
            "environments": self.environments,
            "nodes": self.nodes,
        }
        match [unquote(part) for part in path.strip("/").split("/")]:
            case [kind] if kind in kinds and method == "GET":
                return self._urls(kind, kinds[kind])
            case [kind, name] if kind in kinds and method == "GET":
                return kinds[kind].get(name)
            case ["data", bag] if bag in self.bags:
                return self._urls(f"data/{bag}", self.bags[bag])
            case ["data", bag, item] if bag in self.bags:
                return self.bags[bag].get(item)
            case ["policy_groups"]:
                return {group: self._group(group) for group in self.groups}
            case ["policy_groups", group, "policies", name] if group in self.groups:
                return self.groups[group].get(name)
            case ["search", "node"]:
                return self._search(method, parse_qs(urlsplit(handler.path).query), json.loads(handler.body or b"{}"))
        return None

    def _urls(self, path: str, things: dict[str, Any]) -> dict[str, str]:
        return {name: f"{self.url}/{path}/{name}" for name in things}

    def _group(self, group: str) -> dict[str, Any]:
        policies = {name: {"revision_id": one["revision_id"]} for name, one in self.groups[group].items()}
        return {"uri": f"{self.url}/policy_groups/{group}", "policies": policies}

    def _search(self, method: str, query: dict[str, list[str]], keys: dict[str, list[str]]) -> dict[str, Any]:
        start, rows = int(query.get("start", ["0"])[0]), int(query.get("rows", ["1000"])[0])
        field, _, value = query.get("q", ["*:*"])[0].partition(":")
        found = [one for name, one in sorted(self.nodes.items()) if _found(one, field, value)]
        # The index counts what the rights to a node keep back (strict_search_result_acls).
        page: list[Any] = [one for one in found[start : start + rows] if one["name"] not in self.hidden]
        if method == "POST":
            page = [
                {
                    "url": f"{self.url}/nodes/{one['name']}",
                    "data": {key: _at(flat(one), path) for key, path in keys.items()},
                }
                for one in page
            ]
        return {"total": len(found), "start": start, "rows": page}


def environment(name: str) -> dict[str, Any]:
    """An environment in which nothing is said."""
    return {
        "name": name,
        "description": "",
        "cookbook_versions": {},
        "chef_type": "environment",
        "json_class": "Chef::Environment",
        "default_attributes": {},
        "override_attributes": {},
    }


def flat(node: dict[str, Any]) -> dict[str, Any]:
    """A node as search sees it: its attributes by precedence, and its own keys over them."""
    out: dict[str, Any] = {}
    for kind in ("default", "normal", "override", "automatic"):
        out = _over(out, node[kind])
    own = {
        key: node[key] for key in ("name", "chef_environment", "run_list", "policy_name", "policy_group") if key in node
    }
    return {**out, **own}


def _over(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {**one, **{key: _over(one.get(key), value) for key, value in other.items()}}
    return other


def _at(value: Any, path: list[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _found(node: dict[str, Any], field: str, value: str) -> bool:
    if field == "*":
        return True
    if field == "role":
        return f"role[{value}]" in node["run_list"]
    return bool(_at(flat(node), [field]) == value)


def _below(path: str, organization: str) -> str | None:
    start = f"/organizations/{organization}"
    path = urlsplit(path).path
    return path[len(start) :] if path.startswith(start + "/") else None


# ---------------------------------------------------------------------------------------------- signatures


def faults(method: str, target: str, headers: dict[str, str], body: bytes, key: rsa.RSAPublicKey, now: float) -> str:
    """Why a request is not the user's; empty where it is. headers: names in lower case. now: seconds."""
    sign = dict(part.partition("=")[::2] for part in headers.get("x-ops-sign", "").split(";") if part)
    version = sign.get("version", "")
    if version not in ("1.0", "1.1", "1.3"):
        return f"version {version!r}"
    algorithm = {"1.3": "sha256"}.get(version, "sha1")
    if sign.get("algorithm") != algorithm:
        return f"algorithm {sign.get('algorithm')!r}"
    stamp = headers.get("x-ops-timestamp", "")
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", stamp):
        return "timestamp"
    if abs(datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp() - now) > TOLERANCE:
        return "synchronize the clock on your host"
    content = base64.b64encode(hashlib.new(algorithm, body).digest()).decode()
    if headers.get("x-ops-content-hash") != content:
        return "content hash"
    parts: list[str] = []
    while (part := headers.get(f"x-ops-authorization-{len(parts) + 1}")) is not None:
        parts.append(part)
    if not parts or any(len(part) != 60 for part in parts[:-1]) or len(parts[-1]) > 60:
        return "authorization lines"
    signature = base64.b64decode("".join(parts), validate=True)
    path = re.sub("/+", "/", target.partition("?")[0])
    path = path if path == "/" else path.rstrip("/")
    user = headers.get("x-ops-userid", "")
    if version == "1.3":
        api = headers.get("x-ops-server-api-version", "0")
        text = (
            f"Method:{method}\nPath:{path}\nX-Ops-Content-Hash:{content}\nX-Ops-Sign:version=1.3\n"
            f"X-Ops-Timestamp:{stamp}\nX-Ops-UserId:{user}\nX-Ops-Server-API-Version:{api}"
        )
        try:
            key.verify(signature, text.encode(), padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return "signature"
        return ""
    if version == "1.1":
        user = base64.b64encode(hashlib.sha1(user.encode()).digest()).decode()
    hashed = base64.b64encode(hashlib.sha1(path.encode()).digest()).decode()
    text = (
        f"Method:{method}\nHashed Path:{hashed}\nX-Ops-Content-Hash:{content}\n"
        f"X-Ops-Timestamp:{stamp}\nX-Ops-UserId:{user}"
    )
    return "" if signed_text(signature, key) == text.encode() else "signature"


def signed_text(signature: bytes, key: rsa.RSAPublicKey) -> bytes | None:
    """What was encrypted with the private key (PKCS#1 v1.5, block type 1); None where that is not so."""
    numbers = key.public_numbers()
    length = (numbers.n.bit_length() + 7) // 8
    block = pow(int.from_bytes(signature), numbers.e, numbers.n).to_bytes(length)
    found = re.fullmatch(rb"\x00\x01\xff{8,}\x00(.*)", block, re.DOTALL)
    return found[1] if found else None


# ---------------------------------------------------------------------------------------------- HTTP


class _Handler(HttpHandler):
    part: ChefServer
    body = b""

    def do_GET(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.part.take(self)

    do_POST = do_GET

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self.part.note(self, status)
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        moment = datetime.fromtimestamp(time.time() + self.part.ahead, UTC)
        self.send_header("Date", moment.strftime("%a, %d %b %Y %H:%M:%S GMT"))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def hang(self, until: threading.Event) -> None:
        self.part.note(self, 0)
        until.wait()
        self._end()

    def drip(self, until: threading.Event) -> None:
        self.part.note(self, 0)
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not until.wait(0.02):
                self.wfile.write(b"X-Drip: 1\r\n")
        self._end()

    def cut(self) -> None:
        self.part.note(self, 0)
        self.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"name": ')
        self._end()

    def _end(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
