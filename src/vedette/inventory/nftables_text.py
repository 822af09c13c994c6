"""What nft's JSON says, written much as nft itself would write it: for people, never read again.
Counterpart: `nftables` reads the same for its meaning."""

from __future__ import annotations

from typing import Any

_MOST_SHOWN = 8


def rendered(value: Any) -> str:
    """One statement or expression; of long sets the first elements."""
    if value is None or isinstance(value, str | int | float):
        return "" if value is None else str(value)
    if isinstance(value, list):
        shown = [rendered(one) for one in value[:_MOST_SHOWN]] + (["…"] if len(value) > _MOST_SHOWN else [])
        return ",".join(shown)
    if not isinstance(value, dict) or not value:
        return ""
    kind, inner = next(iter(value.items()))
    match kind:
        case "match":
            operator = "" if inner.get("op") in ("==", "in") else f" {inner.get('op')}"
            return f"{rendered(inner.get('left'))}{operator} {rendered(inner.get('right'))}"
        case "payload" if isinstance(inner, dict):
            return f"{inner.get('protocol', 'raw')} {inner.get('field', '')}".strip()
        case "meta" if isinstance(inner, dict):
            key = str(inner.get("key"))
            return key if key.startswith(("iif", "oif")) else f"meta {key}"
        case "ct" if isinstance(inner, dict):
            return " ".join(str(one) for one in ("ct", inner.get("dir"), inner.get("key")) if one)
        case "fib" if isinstance(inner, dict):
            return f"fib {rendered(inner.get('flags'))} {inner.get('result')}"
        case "set" if isinstance(inner, list):
            return (
                "{ "
                + ", ".join(rendered([one]) for one in inner[:_MOST_SHOWN])
                + (", … }" if len(inner) > _MOST_SHOWN else " }")
            )
        case "range" if isinstance(inner, list):
            return "-".join(str(one) for one in inner)
        case "prefix" if isinstance(inner, dict):
            return f"{inner.get('addr')}/{inner.get('len')}"
        case "concat" if isinstance(inner, list):
            return " . ".join(rendered(one) for one in inner)
        case "&" | "|" if isinstance(inner, list):
            return f" {kind} ".join(f"({rendered(one)})" if isinstance(one, list) else rendered(one) for one in inner)
        case "elem" if isinstance(inner, dict):
            return rendered(inner.get("val"))
        case "jump" | "goto" if isinstance(inner, dict):
            return f"{kind} {inner.get('target')}"
        case "reject":
            words = [inner.get("type"), inner.get("expr")] if isinstance(inner, dict) else []
            named = " ".join(str(one) for one in words if one)
            return f"reject with {named}" if named else "reject"
        case "dnat" | "redirect":
            inner = inner if isinstance(inner, dict) else {}
            port = f":{rendered(inner['port'])}" if inner.get("port") else ""
            return f"{kind} to {rendered(inner.get('addr'))}{port}"
        case "vmap" | "map" if isinstance(inner, dict):
            return f"{rendered(inner.get('key'))} {kind} {rendered(inner.get('data'))}"
        case "limit" if isinstance(inner, dict):
            return f"limit rate {'over ' if inner.get('inv') else ''}{inner.get('rate')}/{inner.get('per')}"
        case "xt" if isinstance(inner, dict):
            return f"xt {inner.get('type')} {inner.get('name')}"
        case _:
            return str(kind)
