"""Whose records there are, told by the members at their top, and where in them fields are and by which names: tables.
Counterpart: `parsers.lenses` looks fields up by them, `parsers.json` makes the columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from vedette.model.events import RecordKind
from vedette.parsers.kinds import UNKNOWN, kind_of

# --------------------------------------------------------------------------------------------- same field

SAME: tuple[tuple[str, ...], ...] = (
    # One field under its names: where a record has it under one, it has it under all.
    ("Image", "NewProcessName", "process.executable"),
    ("CommandLine", "ProcessCommandLine", "process.command_line"),
    ("ParentImage", "ParentProcessName", "process.parent.executable"),
    ("ParentCommandLine", "process.parent.command_line"),
    ("CurrentDirectory", "process.working_directory"),
    ("ProcessGuid", "process.entity_id"),
    ("ParentProcessGuid", "process.parent.entity_id"),
    ("ParentProcessId", "process.parent.pid"),
    ("OriginalFileName", "process.pe.original_file_name", "file.pe.original_file_name"),
    ("Product", "process.pe.product", "file.pe.product"),
    ("Company", "process.pe.company", "file.pe.company"),
    ("Description", "process.pe.description", "file.pe.description"),
    ("FileVersion", "process.pe.file_version", "file.pe.file_version"),
    ("IntegrityLevel", "process.Ext.token.integrity_level_name"),
    ("TargetFilename", "file.path"),
    ("ImageLoaded", "dll.path", "file.path"),
    ("PipeName", "file.name"),
    ("TargetObject", "registry.path"),
    ("Details", "registry.data.strings"),
    ("QueryName", "dns.question.name"),
    ("QueryStatus", "dns.response_code"),
    ("DestinationIp", "DestAddress", "destination.ip"),
    ("DestinationPort", "DestPort", "destination.port"),
    ("DestinationHostname", "destination.domain"),
    ("SourceIp", "SourceAddress", "source.ip"),
    ("IpAddress", "source.ip"),
    ("SourcePort", "source.port"),
    ("SourceHostname", "source.domain"),
    ("IpPort", "source.port"),
    ("Protocol", "network.transport"),
    ("ScriptBlockText", "powershell.file.script_block_text"),
    ("Signature", "ThreatName", "Threat Name"),
    ("ThreatName", "Threat Name"),
    ("Filename", "Path"),
    ("Signed", "dll.code_signature.signed"),
    ("EventID", "EventCode", "event_id", "Id", "event.code"),
    ("EventLog", "Channel"),
    ("Channel", "LogName", "channel", "log_name"),
    ("Provider_Name", "ProviderName", "SourceName", "Source", "provider_name", "event.provider"),
    ("Computer", "MachineName", "ComputerName", "computer_name", "Hostname", "host.name", "host.hostname"),
    ("Message", "message"),
    ("winlog.channel", "Channel"),
    ("winlog.event_id", "EventID"),
    ("winlog.provider_name", "Provider_Name"),
    ("winlog.computer_name", "Computer"),
    ("user.domain", "SubjectDomainName"),
)

SYSTEM: Mapping[str, tuple[str, ...]] = {
    # Where the system part of a nested Windows event has what rules name otherwise.
    "EventID": ("\0id",),
    "Provider_Name": ("Provider_Name", "Provider"),
    "Provider_Guid": ("Provider.#attributes.Guid", "Provider_attributes.Guid", "Provider.@Guid", "Provider.Guid"),
    "TimeCreated": ("\0time",),
    "UserID": (
        "Security.#attributes.UserID",
        "Security_attributes.UserID",
        "Security.@UserID",
        "Security.UserID",
        "Security.UserId",
    ),
    "Execution_ProcessID": (
        "Execution.#attributes.ProcessID",
        "Execution_attributes.ProcessID",
        "Execution.@ProcessID",
        "Execution.ProcessID",
    ),
}


@lru_cache(maxsize=8192)
def same_as(name: str) -> tuple[str, ...]:
    """`name`, and the other names of that field in order of preference."""
    names = dict.fromkeys((name,))
    for group in SAME:
        if name in group:
            names |= dict.fromkeys(group)
    return tuple(names)


# --------------------------------------------------------------------------------------------- families


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where in an object fields may stand under their own name.

    path: the member that holds them, "" is the object itself. names: for a field the names it may have there; the field
    itself and the names of `SAME` come first.
    """

    path: str = ""
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Family:
    """Records of one maker.

    members: alternatives; a record that has all of one at its top is of this family. places: looked into in order.
    time, host: fields that tell when and where, the first one that a record has. local: times without a zone are in
    the zone of the source, not UTC. caseless: names vary in their first letter. blanks: names may be written in
    words ("Threat Name"). kind: of its records, unless `parsers.json` finds more.
    """

    name: str
    members: tuple[frozenset[str], ...]
    places: tuple[Place, ...] = (Place(),)
    kind: RecordKind = UNKNOWN
    time: tuple[str, ...] = ("@timestamp", "timestamp", "time")
    host: tuple[str, ...] = ("host.name", "host.hostname", "hostname", "host")
    caseless: bool = False
    blanks: bool = False


def _members(*alternatives: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(members.split()) for members in alternatives)


_WINDOWS_HOST = ("Computer",)
_WINDOWS_TIME = ("@timestamp", "TimeCreated", "SystemTime", "EventTime", "UtcTime", "timestamp", "Timestamp", "time")

OWN = "vedette"
"""The family of what our own sources write; `parsers.recognise` believes it of attested records alone."""

FAMILIES: tuple[Family, ...] = (
    # The first one that fits.
    Family(OWN, _members("message event vedette")),
    # Windows
    Family(
        "evtx",
        _members("Event"),
        (Place("Event.System", SYSTEM), Place("Event.EventData"), Place("Event.UserData"), Place()),
        time=("TimeCreated", "UtcTime", "@timestamp"),
        host=_WINDOWS_HOST,
        blanks=True,
    ),
    Family(
        "winlogbeat",
        _members("winlog"),
        (Place("winlog"), Place("winlog.event_data"), Place("winlog.user_data"), Place()),
        time=_WINDOWS_TIME,
        host=_WINDOWS_HOST,
        blanks=True,
    ),
    Family(
        "evtx-bare",
        _members("System EventData", "System UserData"),
        (Place("System", SYSTEM), Place("EventData"), Place("UserData"), Place()),
        time=("TimeCreated", "UtcTime", "@timestamp"),
        host=_WINDOWS_HOST,
        blanks=True,
    ),
    Family(
        "windows",
        _members("EventID", "EventCode", "Channel", "ProviderName Id", "LogName Id"),
        (Place(), Place("EventData"), Place("event_data")),
        time=_WINDOWS_TIME,
        host=_WINDOWS_HOST,
        blanks=True,
    ),
    # cloud
    Family(
        "cloudtrail",
        _members("eventVersion eventSource eventName", "eventSource eventName awsRegion"),
        kind=kind_of("aws", "cloudtrail"),
        time=("eventTime",),
        places=(Place("", {"source.ip": ("sourceIPAddress",), "user.name": ("userIdentity.userName",)}),),
    ),
    Family(
        "kubernetes",
        _members("auditID verb", "auditID requestURI"),
        kind=kind_of("kubernetes", "audit", "application"),
        time=("stageTimestamp", "requestReceivedTimestamp"),
        places=(
            Place(
                "",
                {
                    "apiGroup": ("objectRef.apiGroup",),
                    "hostPath": ("requestObject.spec.volumes.hostPath",),
                    "capabilities": (
                        "requestObject.spec.containers.securityContext.capabilities.add",
                        "requestObject.spec.template.spec.containers.securityContext.capabilities.add",
                    ),
                    "source.ip": ("sourceIPs",),
                    "user.name": ("user.username",),
                },
            ),
        ),
    ),
    Family(
        "gcp",
        _members("protoPayload logName", "protoPayload insertId", "protoPayload resource"),
        kind=kind_of("gcp", "gcp.audit"),
        time=("timestamp", "receiveTimestamp"),
        places=(
            Place(
                "",
                {
                    "gcp.audit.method_name": ("protoPayload.methodName",),
                    "gcp.audit.service_name": ("protoPayload.serviceName",),
                    "eventName": ("protoPayload.metadata.event.eventName",),
                    "eventService": ("protoPayload.serviceName",),
                    "protoPayload.Servicename": ("protoPayload.serviceName",),
                    "source.ip": ("protoPayload.requestMetadata.callerIp",),
                    "user.name": ("protoPayload.authenticationInfo.principalEmail",),
                },
            ),
        ),
    ),
    Family(
        "google-workspace",
        _members("id events actor", "id events kind"),
        kind=kind_of("gcp", "google_workspace.admin google_workspace.login"),
        time=("id.time",),
        places=(
            Place(
                "",
                {
                    "eventName": ("events.name",),
                    "eventService": ("id.applicationName",),
                    "protoPayload.metadata.event.eventName": ("events.name",),
                    "source.ip": ("ipAddress",),
                    "user.name": ("actor.email",),
                },
            ),
        ),
    ),
    Family(
        "m365",
        _members("Operation Workload", "Operation RecordType", "CreationTime RecordType"),
        kind=kind_of("m365", "audit"),
        time=("CreationTime",),
        places=(
            Place(
                "",
                {
                    "eventSource": ("Source", "Workload"),
                    "eventName": ("Name", "Operation"),
                    "status": ("Status", "ResultStatus"),
                    "source.ip": ("ClientIP", "ClientIPAddress", "ActorIpAddress"),
                    "user.name": ("UserId",),
                },
            ),
        ),
    ),
    Family(
        "azure",
        _members(
            "resourceId operationName",
            "ResourceId OperationName",
            "resourceId category",
            "operationName properties",
            "OperationName Category",
            "OperationNameValue",
            "CategoryValue",
            "activityDisplayName loggedByService",
            "ActivityDisplayName LoggedByService",
            "userPrincipalName appDisplayName",
            "UserPrincipalName ResultType",
            "riskEventType",
        ),
        caseless=True,
        kind=kind_of("azure"),
        time=("time", "TimeGenerated", "eventTimestamp", "activityDateTime", "createdDateTime", "detectedDateTime"),
        places=(
            Place(
                "",
                {
                    "properties.message": (
                        "properties.activityDisplayName",
                        "activityDisplayName",
                        "properties.operationName",
                        "operationName",
                    ),
                    "OperationNameValue": ("operationName",),
                    "CategoryValue": ("category",),
                    "Username": ("userPrincipalName",),
                    "ClientApp": ("clientAppUsed",),
                    "source.ip": ("callerIpAddress", "ipAddress"),
                    "user.name": ("userPrincipalName", "identity"),
                },
            ),
            Place("properties"),
        ),
    ),
    Family(
        "okta",
        _members("eventType actor outcome", "eventType legacyEventType", "eventType displayMessage published"),
        kind=kind_of("okta", "okta"),
        time=("published",),
        places=(Place("", {"source.ip": ("client.ipAddress",), "user.name": ("actor.alternateId",)}),),
    ),
    Family(
        "bitbucket",
        _members("auditType"),
        kind=kind_of("bitbucket", "audit"),
        time=("timestamp", "createdDate"),
        places=(Place("", {"source.ip": ("source",), "user.name": ("author.name",)}),),
    ),
    Family(
        "github",
        _members("action actor _document_id", "action actor org", "action actor actor_id", "action actor business"),
        kind=kind_of("github", "audit"),
        time=("@timestamp", "created_at"),
        places=(Place("", {"source.ip": ("actor_ip",), "user.name": ("actor",)}),),
    ),
    Family(
        "onelogin",
        _members("event_type_id"),
        kind=kind_of("onelogin", "onelogin.events"),
        time=("event_timestamp", "created_at"),
        places=(Place("", {"source.ip": ("ipaddr",), "user.name": ("user_name",)}),),
    ),
    Family(
        "duo",
        _members("event_type txid", "event_type auth_device", "event_type access_device"),
        kind=kind_of("cisco", "duo"),
        time=("isotimestamp", "timestamp"),
    ),
    Family(
        "opencanary",
        _members("logtype node_id", "logtype dst_host"),
        kind=kind_of("opencanary", "", "application"),
        time=("utc_time", "local_time"),
        host=("node_id",),
        places=(Place("", {"source.ip": ("src_host",), "source.port": ("src_port",)}),),
    ),
    Family(
        "zeek",
        _members("_path", "uid id.orig_h", "ts id.orig_h"),
        kind=kind_of("zeek"),
        time=("ts", "@timestamp"),
        places=(
            Place(
                "",
                {
                    "c-uri": ("uri",),
                    "c-useragent": ("user_agent",),
                    "source.ip": ("id.orig_h",),
                    "source.port": ("id.orig_p",),
                    "destination.ip": ("id.resp_h",),
                    "destination.port": ("id.resp_p",),
                },
            ),
        ),
    ),
    # hosts
    Family(
        "journal",
        _members("MESSAGE __REALTIME_TIMESTAMP", "MESSAGE _BOOT_ID"),
        kind=kind_of("linux"),
        time=("_SOURCE_REALTIME_TIMESTAMP", "__REALTIME_TIMESTAMP"),
        host=("_HOSTNAME",),
        places=(Place("", {"message": ("MESSAGE",), "process.pid": ("_PID",)}),),
    ),
    Family(
        "web",
        _members(
            "remote_addr request",
            "remote_addr request_method",
            "remote_addr request_uri",
            "remote_ip request",
            "request_method status",
            "cs-method",
            "cs-uri-stem",
            "cs-uri-query",
            "c-uri",
        ),
        kind=kind_of("", "", "webserver proxy"),
        time=("@timestamp", "time_iso8601", "timestamp", "time", "ts", "msec"),
        places=(
            Place(
                "",
                {
                    "cs-method": ("request_method", "method", "http.request.method"),
                    "cs-uri": ("request_uri", "uri", "url.original"),
                    "c-uri": ("request_uri", "uri", "url.original"),
                    "cs-uri-query": ("args", "query_string", "url.query", "request_uri", "uri"),
                    "cs-uri-stem": ("url.path", "uri", "request_uri"),
                    "cs-host": ("http_host", "host", "server_name"),
                    "cs-user-agent": ("http_user_agent", "user_agent", "user_agent.original", "agent"),
                    "c-useragent": ("http_user_agent", "user_agent", "user_agent.original", "agent"),
                    "cs-referer": ("http_referer", "referer", "referrer"),
                    "sc-status": ("status", "status_code", "http.response.status_code"),
                    "c-ip": ("remote_addr", "remote_ip", "client_ip", "source.ip"),
                    "cs-username": ("remote_user",),
                    "source.ip": ("remote_addr", "remote_ip", "c-ip"),
                },
            ),
        ),
    ),
    Family("ecs", _members("event", "event.category", "event.dataset", "ecs")),
    Family(
        "plain",
        (frozenset(),),
        time=("@timestamp", "timestamp", "Timestamp", "time", "ts", "date", "datetime", "UtcTime", "eventTime"),
        places=(Place("", {"message": ("Message", "msg", "log", "text"), "Computer": ("host", "hostname")}),),
    ),
)


@lru_cache(maxsize=1024)
def family_of(members: frozenset[str]) -> Family:
    """The family of objects that have these members."""
    return next(family for family in FAMILIES if any(wanted <= members for wanted in family.members))
