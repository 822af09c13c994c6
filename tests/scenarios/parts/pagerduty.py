"""An HTTPS server on loopback that judges, stores and answers as PagerDuty's Events API v2 does, or as a test wants.
Counterpart: the notifier that sends to it, and the listener that takes its signed webhooks (v3)."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, Literal
from urllib.parse import urlsplit

from .http import HttpHandler, HttpServer
from .processes import wait_until

State = Literal["triggered", "acknowledged", "resolved"]

ROUTING_KEY = "0123456789abcdef0123456789abcdef"

_SEVERITIES = {"critical", "error", "warning", "info"}
_TOP = {"routing_key", "event_action", "dedup_key", "payload", "images", "links", "client", "client_url"}
_PAYLOAD = {"summary", "source", "severity", "timestamp", "component", "group", "class", "custom_details"}
_CHANGE_TOP = {"routing_key", "payload", "links"}
_CHANGE_PAYLOAD = {"summary", "source", "timestamp", "custom_details"}
_MAX_BYTES = 512_000


@dataclass
class Incident:
    """An alert at PagerDuty: opened by a trigger, until resolved. `events` are the bodies that applied to it."""

    id: str
    number: int
    routing_key: str
    dedup_key: str
    state: State
    events: list[dict[str, Any]] = field(default_factory=list)

    @property
    def triggers(self) -> int:
        """How many triggers applied; only the first one notified anybody."""
        return sum(event["event_action"] == "trigger" for event in self.events)


@dataclass(frozen=True)
class Request:
    """One request: `received` in microseconds UTC, `status` 0 when unanswered, `accepted` when it took effect."""

    received: int
    path: str
    body: dict[str, Any]
    raw: bytes
    status: int
    accepted: bool
    errors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What happens to one request. kind: "judge" as PagerDuty would; "status" answer with it, without effect;
    "hang" no answer until `release`; "cut" close without answer, `applied` or not.
    """

    kind: Literal["judge", "status", "hang", "cut"] = "judge"
    status: int = 202
    headers: tuple[tuple[str, str], ...] = ()
    applied: bool = False


def faults(body: Any, size: int, *, change: bool = False) -> list[str]:
    """What PagerDuty would refuse about an event; empty when it is right (documentation of Events API v2)."""
    if size > _MAX_BYTES:
        return [f"payload of {size} bytes is over 512 KB"]
    if not isinstance(body, dict):
        return ["body is no object"]
    wrong = [f"unknown field {name!r}" for name in body.keys() - (_CHANGE_TOP if change else _TOP)]
    key = body.get("routing_key")
    if not isinstance(key, str) or len(key) != 32:
        wrong.append("routing_key must be 32 characters")
    if change:
        return wrong + _payload_faults(body.get("payload"), {"summary"}, _CHANGE_PAYLOAD)
    action = body.get("event_action")
    if action not in ("trigger", "acknowledge", "resolve"):
        return [*wrong, f"event_action {action!r}"]
    dedup = body.get("dedup_key")
    if dedup is not None and (not isinstance(dedup, str) or not 0 < len(dedup) <= 255):
        wrong.append("dedup_key must be 1 to 255 characters")
    if action != "trigger":
        return wrong + ([] if dedup else ["dedup_key is required"])
    wrong += _payload_faults(body.get("payload"), {"summary", "source", "severity"}, _PAYLOAD)
    wrong += [f"link without href: {link!r}" for link in body.get("links", []) if not _has(link, "href", "")]
    return wrong + [
        f"image without https src: {one!r}" for one in body.get("images", []) if not _has(one, "src", "https://")
    ]


def _has(value: Any, name: str, start: str) -> bool:
    return isinstance(value, dict) and isinstance(value.get(name), str) and value[name].startswith(start)


def _payload_faults(payload: Any, required: set[str], known: set[str]) -> list[str]:
    if not isinstance(payload, dict):
        return ["payload is required"]
    wrong = [f"unknown payload.{name}" for name in payload.keys() - known]
    wrong += [
        f"payload.{name} is required"
        for name in required
        if not isinstance(payload.get(name), str) or not payload[name]
    ]
    if len(str(payload.get("summary", ""))) > 1024:
        wrong.append("payload.summary is over 1024 characters")
    if "severity" in required and payload.get("severity") not in _SEVERITIES:
        wrong.append(f"payload.severity {payload.get('severity')!r}")
    if "timestamp" in payload:
        try:
            datetime.fromisoformat(payload["timestamp"])
        except (TypeError, ValueError):
            wrong.append("payload.timestamp is not ISO 8601")
    if not isinstance(payload.get("custom_details", {}), dict):
        wrong.append("payload.custom_details must be an object")
    return wrong


class PagerDuty:
    """Starts at once; give its `enqueue_url` and the authority's `ca_file` to the notifier.

    Answers: `plan(...)` queues one for the next request each, `always(...)` until `recover`; otherwise it judges: 202
    with the dedup_key, 400 with errors. `down`/`up` keep the port. Everything is recorded in order of arrival.
    """

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._lock = threading.Lock()
        self._plan: deque[Answer] = deque()
        self._always: Answer | None = None
        self._released = threading.Event()
        self._numbers = itertools.count(1)
        self._requests: list[Request] = []
        self._incidents: list[Incident] = []
        self._server: HttpServer | None = None
        self._thread: threading.Thread | None = None
        self.port = 0
        self.up()

    @property
    def enqueue_url(self) -> str:
        """For alerts."""
        return f"https://localhost:{self.port}/v2/enqueue"

    @property
    def change_url(self) -> str:
        """For change events, which never notify."""
        return f"https://localhost:{self.port}/v2/change/enqueue"

    @property
    def requests(self) -> list[Request]:
        """All requests, in order of arrival."""
        with self._lock:
            return list(self._requests)

    @property
    def incidents(self) -> list[Incident]:
        """All incidents, in order of opening; the same dedup_key may occur again after a resolve."""
        with self._lock:
            return list(self._incidents)

    def open_incidents(self) -> list[Incident]:
        """Those not resolved."""
        return [incident for incident in self.incidents if incident.state != "resolved"]

    def plan(self, *answers: Answer) -> None:
        """Answers for the next requests, one each."""
        self._plan.extend(answers)

    def always(self, answer: Answer) -> None:
        """This answer for every request until `recover`."""
        self._always = answer

    def recover(self) -> None:
        """Judge again, and let go of what hangs."""
        self._always = None
        self._plan.clear()
        self.release()

    def release(self) -> None:
        """End all hanging requests (closed without an answer)."""
        self._released.set()

    def wait_for(self, count: int, timeout: float = 15.0) -> list[Request]:
        """Requests that took effect, once there are `count` of them."""

        def accepted() -> list[Request]:
            return [request for request in self.requests if request.accepted]

        wait_until(f"{count} accepted events", lambda: len(accepted()) >= count, timeout)
        return accepted()

    def up(self) -> None:
        """Listen (again, on the same port)."""
        if self._server is not None:
            return
        self._released.clear()
        part = self

        class Handler(_Handler):
            pagerduty = part

        self._server = HttpServer(("127.0.0.1", self.port), Handler, self._context)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="pagerduty", daemon=True)
        self._thread.start()

    def down(self) -> None:
        """Gone: connections are refused, and those that are open end."""
        if self._server is None or self._thread is None:
            return
        self.release()
        self._server.shutdown()
        self._server.end_connections()
        self._server.server_close()
        self._thread.join(10)
        self._server = self._thread = None

    def close(self) -> None:
        """Stop for good."""
        self.down()

    def take(self, path: str, raw: bytes) -> tuple[Answer, int, dict[str, Any]]:
        """Judge and record one request; (answer, status, JSON to answer)."""
        received = time.time_ns() // 1000
        with self._lock:
            answer = self._always or (self._plan.popleft() if self._plan else Answer())
            change = path == "/v2/change/enqueue"
            body: Any = None
            try:
                body = json.loads(raw)
                wrong = faults(body, len(raw), change=change)
            except ValueError:
                wrong = ["body is no JSON"]
            if not change and path != "/v2/enqueue":
                wrong = ["no such path"]
            effect = not wrong and (answer.kind == "judge" or (answer.kind == "cut" and answer.applied))
            dedup = self._apply(body) if effect and not change else ""
            status = {"judge": 400 if wrong else 202, "status": answer.status}.get(answer.kind, 0)
            record = body if isinstance(body, dict) else {}
            self._requests.append(Request(received, path, record, raw, status, effect, tuple(wrong)))
        if status == 202:
            return answer, status, {"status": "success", "message": "Event processed", "dedup_key": dedup}
        if status == 400:
            errors = wrong or ["as the test wants it"]
            return answer, status, {"status": "invalid event", "message": "Event object is invalid", "errors": errors}
        return answer, status, {"status": "throttle exceeded" if status == 429 else "error"}

    def _apply(self, body: dict[str, Any]) -> str:
        number = next(self._numbers)
        dedup = str(body.get("dedup_key") or f"made-by-pagerduty-{number}")
        current = next(
            (
                one
                for one in self._incidents
                if one.state != "resolved" and (one.routing_key, one.dedup_key) == (body["routing_key"], dedup)
            ),
            None,
        )
        action = body["event_action"]
        if current is None:
            # Without an open alert, acknowledge and resolve are dropped silently: still 202.
            if action == "trigger":
                opened = Incident(f"Q{number:013d}", number, body["routing_key"], dedup, "triggered", [body])
                self._incidents.append(opened)
            return dedup
        current.events.append(body)
        if action == "resolve":
            current.state = "resolved"
        elif action == "acknowledge":
            current.state = "acknowledged"
        return dedup

    def person_does(self, incident: Incident, state: State) -> None:
        """A person acknowledges or resolves it in PagerDuty's own interface (send the webhook to tell us)."""
        with self._lock:
            incident.state = state

    def webhook(self, incident: Incident, event_type: str, *, event_id: str | None = None) -> bytes:
        """The body of a v3 webhook about an incident, such as `incident.acknowledged`."""
        event = {
            "id": event_id or f"01{next(self._numbers):024d}",
            "event_type": event_type,
            "resource_type": "incident",
            "occurred_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "agent": {"id": "PUSER01", "type": "user_reference", "summary": "Someone on call"},
            "client": None,
            "data": {
                "id": incident.id,
                "type": "incident",
                "number": incident.number,
                "status": incident.state,
                "incident_key": incident.dedup_key,
                "title": incident.events[0]["payload"]["summary"],
                "urgency": "high",
                "service": {"id": "PSERV01", "type": "service_reference", "summary": "Vedette"},
            },
        }
        return json.dumps({"event": event}).encode()


class _Handler(HttpHandler):
    pagerduty: PagerDuty

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        answer, status, body = self.pagerduty.take(self.path, raw)
        if answer.kind == "hang":
            self.pagerduty._released.wait()
        if answer.kind in ("hang", "cut"):
            self.close_connection = True
            self.connection.close()
            return
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def signature(body: bytes, *secrets: str) -> str:
    """Value of X-PagerDuty-Signature: one `v1=` HMAC-SHA256 for each secret (two while a secret is being changed)."""
    return ",".join(f"v1={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}" for secret in secrets)


def post(url: str, body: bytes, headers: dict[str, str], context: ssl.SSLContext | None = None) -> int:
    """POST as PagerDuty's webhook sender does; the HTTP status."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection = (
        HTTPSConnection(host, port, timeout=10, context=context)
        if parts.scheme == "https"
        else HTTPConnection(host, port, timeout=10)
    )
    try:
        connection.request("POST", parts.path or "/", body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status
    finally:
        connection.close()


def send_webhook(url: str, body: bytes, *secrets: str, context: ssl.SSLContext | None = None) -> int:
    """Send a signed webhook; the status it was answered with."""
    return post(
        url, body, {"X-PagerDuty-Signature": signature(body, *secrets), "User-Agent": "PagerDuty-Webhook/V3.0"}, context
    )
