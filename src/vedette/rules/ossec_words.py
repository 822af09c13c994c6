"""The words of OSSEC's and Wazuh's rules: elements, the fields they look at, and whose dialect uses them.
Counterpart: `ossec` reads rules with them; `parsers.ossec_fields` gives the fields."""

from __future__ import annotations

from enum import StrEnum


class Dialect(StrEnum):
    """Whose rules they are: some words mean different things."""

    OSSEC = "ossec"
    WAZUH = "wazuh"


LOG, DECODER, CATEGORY, PROGRAM, HOST, LOCATION, USER, FIRST, SIZE, MINUTE, WEEKDAY = (
    f"ossec.{name}"
    for name in [
        "log",
        "decoder",
        "category",
        "program",
        "host",
        "location",
        "user",
        "first",
        "size",
        "minute",
        "weekday",
    ]
)
DATA = "ossec.data."
"""Before the names of what decoders find."""

CATEGORIES = ("syslog", "firewall", "ids", "web-log", "squid", "windows", "ossec", "ossec-alert", "host-information")

PATTERNS: dict[str, tuple[str, str, str]] = {
    # element: field, default type (ossec), default type (wazuh)
    "match": (LOG, "osmatch", "osmatch"),
    "regex": (LOG, "osregex", "osregex"),
    "program_name": (PROGRAM, "osmatch", "osmatch"),
    "hostname": (HOST, "osmatch", "osmatch"),
    "location": (LOCATION, "osmatch", "osmatch"),
    "user": (USER, "osmatch", "osmatch"),
    "action": (f"{DATA}action", "string", "string"),
    **{
        name: (f"{DATA}{name}", "osmatch", "osmatch")
        for name in (
            [
                "id",
                "url",
                "status",
                "srcport",
                "dstport",
                "extra_data",
                "data",
                "protocol",
                "system_name",
                "srcgeoip",
                "dstgeoip",
                "srcuser",
            ]
        )
    },
}
"""Elements whose text is a pattern; each has a twin `<name>_pcre2`."""

SAME: dict[str, str] = {
    "source_ip": "srcip",
    "srcip": "srcip",
    "dst_ip": "dstip",
    "dstip": "dstip",
    "src_port": "srcport",
    "srcport": "srcport",
    "dst_port": "dstport",
    "dstport": "dstport",
    "user": "dstuser",
    "dstuser": "dstuser",
    "srcuser": "srcuser",
    "id": "id",
    "protocol": "protocol",
    "action": "action",
    "url": "url",
    "data": "data",
    "extra_data": "extra_data",
    "status": "status",
    "system_name": "system_name",
    "srcgeoip": "srcgeoip",
    "dstgeoip": "dstgeoip",
}
"""What may follow `same_`, `different_` and `not_same_`."""

CARRIED = frozenset(["description", "group", "info", "cve", "mitre", "options", "category", "decoded_as", "var"])
"""Elements that say what is told, or are read where the rule is put into the tree."""

PLACING = frozenset(
    ["if_sid", "if_group", "if_level", "if_matched_sid", "if_matched_group", "if_matched_regex", "if_fts"]
)
OTHERS = frozenset(
    [
        "time",
        "weekday",
        "srcip",
        "dstip",
        "field",
        "list",
        "compiled_rule",
        "ignore",
        "check_if_ignored",
        "check_diff",
        "same_field",
        "not_same_field",
        "different_field",
        "same_location",
        "different_location",
        "not_same_agent",
        "same_agent",
        "global_frequency",
    ]
)

MEMORY = {"user": "dstuser", "srcip": "srcip", "dstip": "dstip", "id": "id", "data": "data"}
"""Fields that `ignore` and `check_if_ignored` know, beside `location` and `name`."""

ATTRIBUTES = frozenset(
    ["id", "level", "maxsize", "frequency", "timeframe", "ignore", "accuracy", "noalert", "overwrite"]
)

OSSEC_MARKS = frozenset({"pcre2", "match_pcre2", "prematch_pcre2", "program_name_pcre2", "cve"})
WAZUH_MARKS = frozenset({"mitre", "same_field", "not_same_field", "same_srcip", "global_frequency", "json_null_field"})
