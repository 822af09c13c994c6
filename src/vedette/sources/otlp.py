"""Log records by OTLP/HTTP (OTLP specification 1.x): answered once they were handed on and kept, as JSON by HTTP is.
Counterpart: otlp_records.py makes events of them; http.py knows senders, limits and answers."""

from __future__ import annotations

import orjson

from vedette.model.reasons import DropReason
from vedette.sources.http import HttpSource, Taken
from vedette.sources.http_words import Answer, Asked, RequestEnd

NAME = "otlp"
PATHS = ("/v1/logs",)
_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_REJECTED = {
    DropReason.RECORD_TOO_LONG: "longer than max_record",
    DropReason.JSON_UNREADABLE: "not a log record",
}


class OtlpSource(HttpSource):
    """Takes `ExportLogsServiceRequest`, protobuf and JSON. Origins: `otlp:token/NAME`, `otlp:anonymous/ADDRESS`.

    A record is a JSON event of ours, not the bytes that came: `otlp_records` says under which names. Records that
    cannot be taken are told by partial success and counted; the others are taken.
    """

    name = NAME
    paths = PATHS

    def _read_body(self, body: bytes, media_type: str) -> Taken:
        # Only the extra `hub` brings what it is made of.
        from vedette.sources.otlp_records import Reader

        reader = Reader(self._http.max_record, self._http.max_unpacked * 2)
        made = reader.json(body) if media_type == _JSON else reader.protobuf(body)
        return Taken(made.records, made.dropped)

    def _answered_as(self, asked: Asked) -> str:
        named = asked.headers.get("content-type", "").partition(";")[0].strip().lower()
        return named if named == _JSON else _PROTOBUF

    def _takes(self, media_type: str) -> bool:
        return media_type in (_PROTOBUF, _JSON)

    def _status(self, end: RequestEnd, status: int) -> int:
        # Of what may have been the network's fault senders try again after 503 alone, not after 408.
        return 503 if end is RequestEnd.TOO_SLOW else status

    def _words(self, why: str, asked: Asked) -> bytes:
        if self._answered_as(asked) == _JSON:
            return orjson.dumps({"message": why})
        # google.rpc.Status: field 2, the message.
        text = why.encode()[:127]
        return bytes([0x12, len(text)]) + text

    def _taken(self, taken: Taken, asked: Asked) -> Answer:
        from vedette.sources.otlp_records import response

        rejected = {words: taken.dropped[reason] for reason, words in _REJECTED.items() if reason in taken.dropped}
        why = ", ".join(f"{n} {words}" for words, n in rejected.items())
        media = self._answered_as(asked)
        return Answer(200, response(sum(rejected.values()), why, as_json=media == _JSON), media)
