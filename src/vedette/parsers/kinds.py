"""What records are, as data: log sources by channel, event id and members; names that mean the same field.
Counterpart: `parsers.json` applies it to objects; `detections` compare the words with the log sources of rules."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from vedette.model.events import RecordKind

# --------------------------------------------------------------------------------------------- Windows

CHANNELS: Mapping[str, str] = {
    # Channel of a Windows event log, lower case, to the service of Sigma log sources.
    "application": "application",
    "security": "security",
    "system": "system",
    "windows powershell": "powershell-classic",
    "dns server": "dns-server",
    "msexchange management": "msexchange-management",
    "openssh/operational": "openssh",
    "openssh/admin": "openssh",
    "powershellcore/operational": "powershell",
    "microsoft-ia-powershell/operational": "powershell",
    "microsoft-windows-powershell/operational": "powershell",
    "microsoft-iis-configuration/operational": "iis-configuration",
    "microsoft-servicebus-client/admin": "microsoft-servicebus-client",
    "microsoft-servicebus-client/operational": "microsoft-servicebus-client",
    "microsoft-windows-applocker/exe and dll": "applocker",
    "microsoft-windows-applocker/msi and script": "applocker",
    "microsoft-windows-applocker/packaged app-deployment": "applocker",
    "microsoft-windows-applocker/packaged app-execution": "applocker",
    "microsoft-windows-application-experience/program-compatibility-assistant": "application-experience",
    "microsoft-windows-application-experience/program-telemetry": "application-experience",
    "microsoft-windows-appmodel-runtime/admin": "appmodel-runtime",
    "microsoft-windows-appxdeploymentserver/operational": "appxdeployment-server",
    "microsoft-windows-appxdeployment-server/operational": "appxdeployment-server",
    "microsoft-windows-appxpackaging/operational": "appxpackaging-om",
    "microsoft-windows-bitlocker/bitlocker management": "bitlocker",
    "microsoft-windows-bits-client/operational": "bits-client",
    "microsoft-windows-capi2/operational": "capi2",
    "microsoft-windows-certificateservicesclient-lifecycle-system/operational": (
        "certificateservicesclient-lifecycle-system"
    ),
    "microsoft-windows-codeintegrity/operational": "codeintegrity-operational",
    "microsoft-windows-dhcp-server/operational": "dhcp",
    "microsoft-windows-diagnosis-scripted/operational": "diagnosis-scripted",
    "microsoft-windows-dns client events/operational": "dns-client",
    "microsoft-windows-dns-client/operational": "dns-client",
    "microsoft-windows-dns-server/analytical": "dns-server-analytic",
    "microsoft-windows-dnsserver/analytical": "dns-server-analytic",
    "microsoft-windows-dnsserver/audit": "dns-server-audit",
    "microsoft-windows-driverframeworks-usermode/operational": "driver-framework",
    "microsoft-windows-hyper-v-worker": "hyper-v-worker",
    "microsoft-windows-hyper-v-worker-admin": "hyper-v-worker",
    "microsoft-windows-kernel-eventtracing": "kernel-event-tracing",
    "microsoft-windows-kernel-eventtracing/admin": "kernel-event-tracing",
    "microsoft-windows-kernel-shimengine/diagnostic": "kernel-shimengine",
    "microsoft-windows-kernel-shimengine/operational": "kernel-shimengine",
    "microsoft-windows-ldap-client/debug": "ldap",
    "microsoft-windows-lsa/operational": "lsa-server",
    "microsoft-windows-ntfs/operational": "ntfs",
    "microsoft-windows-ntlm/operational": "ntlm",
    "microsoft-windows-printservice/admin": "printservice-admin",
    "microsoft-windows-printservice/operational": "printservice-operational",
    "microsoft-windows-security-mitigations/kernel mode": "security-mitigations",
    "microsoft-windows-security-mitigations/user mode": "security-mitigations",
    "microsoft-windows-sense/operational": "sense",
    "microsoft-windows-shell-core/operational": "shell-core",
    "microsoft-windows-smbclient/audit": "smbclient-audit",
    "microsoft-windows-smbclient/connectivity": "smbclient-connectivity",
    "microsoft-windows-smbclient/security": "smbclient-security",
    "microsoft-windows-smbserver/audit": "smbserver-audit",
    "microsoft-windows-smbserver/connectivity": "smbserver-connectivity",
    "microsoft-windows-sysmon/operational": "sysmon",
    "microsoft-windows-taskscheduler/operational": "taskscheduler",
    "microsoft-windows-terminalservices-localsessionmanager/operational": "terminalservices-localsessionmanager",
    "microsoft-windows-vhdmp/operational": "vhdmp",
    "microsoft-windows-windows defender/operational": "windefend",
    "microsoft-windows-windows defender/whc": "windefend",
    "microsoft-windows-windows firewall with advanced security/firewall": "firewall-as",
    "microsoft-windows-wmi-activity/operational": "wmi",
    "microsoft-windows-wmi-activity/trace": "wmi",
    "linux-sysmon/operational": "sysmon",
    "rpcfw": "rpcfw",
}

PROVIDERS: Mapping[str, str] = {
    # Where a record names no channel: its provider, lower case.
    "microsoft-windows-sysmon": "sysmon",
    "linux-sysmon": "sysmon",
    "microsoft-windows-security-auditing": "security",
    "microsoft-windows-eventlog": "security",
    "microsoft-windows-powershell": "powershell",
    "powershellcore": "powershell",
    "powershell": "powershell-classic",
    "service control manager": "system",
    "microsoft-windows-kernel-general": "system",
    "microsoft-windows-windows defender": "windefend",
    "microsoft-windows-taskscheduler": "taskscheduler",
    "microsoft-windows-wmi-activity": "wmi",
    "microsoft-windows-bits-client": "bits-client",
    "microsoft-windows-windows firewall with advanced security": "firewall-as",
    "microsoft-windows-codeintegrity": "codeintegrity-operational",
    "microsoft-windows-dns-client": "dns-client",
    "microsoft-windows-ntlm": "ntlm",
    "microsoft-windows-applocker": "applocker",
    "msexchange management": "msexchange-management",
    "openssh": "openssh",
    "rpcfw": "rpcfw",
}

CATEGORIES: Mapping[str, Mapping[int, tuple[str, ...]]] = {
    # Service, event id: the categories of Sigma log sources.
    "sysmon": {
        1: ("process_creation",),
        2: ("file_change",),
        3: ("network_connection",),
        4: ("sysmon_status",),
        5: ("process_termination",),
        6: ("driver_load",),
        7: ("image_load",),
        8: ("create_remote_thread",),
        9: ("raw_access_thread",),
        10: ("process_access",),
        11: ("file_event",),
        12: ("registry_event", "registry_add", "registry_delete"),
        13: ("registry_event", "registry_set"),
        14: ("registry_event", "registry_rename"),
        15: ("create_stream_hash",),
        16: ("sysmon_status",),
        17: ("pipe_created",),
        18: ("pipe_created",),
        19: ("wmi_event",),
        20: ("wmi_event",),
        21: ("wmi_event",),
        22: ("dns_query",),
        23: ("file_delete",),
        24: ("clipboard_capture", "clipboard_change"),
        25: ("process_tampering",),
        26: ("file_delete", "file_delete_detected"),
        27: ("file_block_executable",),
        28: ("file_block_shredding",),
        29: ("file_executable_detected",),
        255: ("sysmon_error",),
    },
    "security": {
        4657: ("registry_event", "registry_set"),
        4688: ("process_creation",),
        4689: ("process_termination",),
    },
    "powershell": {4103: ("ps_module",), 4104: ("ps_script",)},
    "powershell-classic": {
        400: ("ps_classic_start",),
        600: ("ps_classic_provider_start",),
        800: ("ps_classic_script",),
    },
    "windefend": dict.fromkeys(
        (1006, 1007, 1008, 1009, 1010, 1011, 1012, 1017, 1018, 1019, 1115, 1116, 1117), ("antivirus",)
    ),
}

# What an event of several categories was, by its EventType.
NARROWED: Mapping[str, tuple[str, ...]] = {
    "createkey": ("registry_event", "registry_add"),
    "deletekey": ("registry_event", "registry_delete"),
    "deletevalue": ("registry_event", "registry_delete"),
}

SECURITY_IDS = (range(4608, 6500), range(1100, 1109))
"""Ids of the Security log, for records that name neither channel nor provider."""


@lru_cache(maxsize=4096)
def windows_kind(channel: str, provider: str, event_id: int, event_type: str, service: str = "") -> RecordKind:
    """The kind of a Windows event (or one of Sysmon for Linux). service: as told by its fields, if nothing else."""
    provider = provider.lower()
    found = CHANNELS.get(channel.lower()) or PROVIDERS.get(provider) or service
    if not found and any(event_id in ids for ids in SECURITY_IDS) and not channel and not provider:
        found = "security"
    if found == "rpcfw":
        return RecordKind("rpc_firewall", frozenset({"application"}))
    categories = CATEGORIES.get(found, {}).get(event_id, ())
    if len(categories) > 1:
        categories = NARROWED.get(event_type.lower(), categories)
    product = "linux" if "linux-sysmon" in (provider, channel.lower().partition("/")[0]) else "windows"
    return RecordKind(product, frozenset(categories), frozenset({found} if found else ()))


# What fields tell of an event that names nothing else, most telling first.
TELLTALES: tuple[tuple[frozenset[str], str, tuple[str, ...]], ...] = (
    (frozenset({"ScriptBlockText"}), "windows", ("ps_script",)),
    (frozenset({"TargetObject"}), "windows", ("registry_event", "registry_set")),
    (frozenset({"ImageLoaded", "Image"}), "windows", ("image_load",)),
    (frozenset({"ImageLoaded"}), "windows", ("driver_load",)),
    (frozenset({"PipeName"}), "windows", ("pipe_created",)),
    (frozenset({"GrantedAccess", "TargetImage"}), "windows", ("process_access",)),
    (frozenset({"StartAddress", "TargetImage"}), "windows", ("create_remote_thread",)),
    (frozenset({"CommandLine", "Image"}), "", ("process_creation",)),
    (frozenset({"QueryName", "Image"}), "", ("dns_query",)),
    (frozenset({"DestinationIp", "Image"}), "", ("network_connection",)),
    (frozenset({"TargetFilename", "Image"}), "", ("file_event",)),
)

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


UNKNOWN = RecordKind()


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


def _kind(product: str, services: str = "", categories: str = "") -> RecordKind:
    return RecordKind(product, frozenset(categories.split()), frozenset(services.split()))


_WINDOWS_HOST = ("Computer",)
_WINDOWS_TIME = ("@timestamp", "TimeCreated", "SystemTime", "EventTime", "UtcTime", "timestamp", "Timestamp", "time")

FAMILIES: tuple[Family, ...] = (
    # The first one that fits. Windows
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
        kind=_kind("aws", "cloudtrail"),
        time=("eventTime",),
        places=(Place("", {"source.ip": ("sourceIPAddress",), "user.name": ("userIdentity.userName",)}),),
    ),
    Family(
        "kubernetes",
        _members("auditID verb", "auditID requestURI"),
        kind=_kind("kubernetes", "audit", "application"),
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
        kind=_kind("gcp", "gcp.audit"),
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
        kind=_kind("gcp", "google_workspace.admin google_workspace.login"),
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
        kind=_kind("m365", "audit"),
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
        kind=_kind("azure"),
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
        kind=_kind("okta", "okta"),
        time=("published",),
        places=(Place("", {"source.ip": ("client.ipAddress",), "user.name": ("actor.alternateId",)}),),
    ),
    Family(
        "bitbucket",
        _members("auditType"),
        kind=_kind("bitbucket", "audit"),
        time=("timestamp", "createdDate"),
        places=(Place("", {"source.ip": ("source",), "user.name": ("author.name",)}),),
    ),
    Family(
        "github",
        _members("action actor _document_id", "action actor org", "action actor actor_id", "action actor business"),
        kind=_kind("github", "audit"),
        time=("@timestamp", "created_at"),
        places=(Place("", {"source.ip": ("actor_ip",), "user.name": ("actor",)}),),
    ),
    Family(
        "onelogin",
        _members("event_type_id"),
        kind=_kind("onelogin", "onelogin.events"),
        time=("event_timestamp", "created_at"),
        places=(Place("", {"source.ip": ("ipaddr",), "user.name": ("user_name",)}),),
    ),
    Family(
        "duo",
        _members("event_type txid", "event_type auth_device", "event_type access_device"),
        kind=_kind("cisco", "duo"),
        time=("isotimestamp", "timestamp"),
    ),
    Family(
        "opencanary",
        _members("logtype node_id", "logtype dst_host"),
        kind=_kind("opencanary", "", "application"),
        time=("utc_time", "local_time"),
        host=("node_id",),
        places=(Place("", {"source.ip": ("src_host",), "source.port": ("src_port",)}),),
    ),
    Family(
        "zeek",
        _members("_path", "uid id.orig_h", "ts id.orig_h"),
        kind=_kind("zeek"),
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
        kind=_kind("linux"),
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
        kind=_kind("", "", "webserver proxy"),
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


# --------------------------------------------------------------------------------------------- by value

AZURE_SERVICES: Mapping[str, tuple[str, ...]] = {
    # Category of an Azure record, lower case. Others are those of the activity log.
    "signinlogs": ("signinlogs",),
    "noninteractiveusersigninlogs": ("signinlogs",),
    "serviceprincipalsigninlogs": ("signinlogs",),
    "managedidentitysigninlogs": ("signinlogs",),
    "adfssigninlogs": ("signinlogs",),
    "auditlogs": ("auditlogs",),
    "riskyusers": ("riskdetection",),
    "userriskevents": ("riskdetection",),
    "riskyserviceprincipals": ("riskdetection",),
    "serviceprincipalriskevents": ("riskdetection",),
}

AZURE_MEMBERS: tuple[tuple[frozenset[str], tuple[str, ...]], ...] = (
    # Where no category tells: members, in lower case.
    (frozenset({"riskeventtype"}), ("riskdetection", "pim")),
    (frozenset({"userprincipalname", "appdisplayname"}), ("signinlogs",)),
    (frozenset({"resulttype", "userprincipalname"}), ("signinlogs",)),
    (frozenset({"loggedbyservice"}), ("auditlogs",)),
)

M365_SECURITY = "securitycompliancecenter"
"""Workload whose records rules also look for as exchange, threat_management and threat_detection."""

GOOGLE_SERVICES: Mapping[str, tuple[str, ...]] = {
    "admin.googleapis.com": ("google_workspace.admin",),
    "login.googleapis.com": ("google_workspace.login",),
    "admin": ("google_workspace.admin",),
    "login": ("google_workspace.login",),
}

ZEEK_MEMBERS: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"endpoint", "operation"}), "dce_rpc"),
    (frozenset({"query", "qtype_name"}), "dns"),
    (frozenset({"method", "uri"}), "http"),
    (frozenset({"request_type", "cipher"}), "kerberos"),
    (frozenset({"cookie", "security_protocol"}), "rdp"),
    (frozenset({"action", "path", "name"}), "smb_files"),
)

ECS_CATEGORIES: Mapping[tuple[str, str], tuple[str, ...]] = {
    # event.category, event.type (ECS)
    ("process", "start"): ("process_creation",),
    ("process", "end"): ("process_termination",),
    ("process", "access"): ("process_access",),
    ("network", "start"): ("network_connection",),
    ("network", "connection"): ("network_connection",),
    ("file", "creation"): ("file_event",),
    ("file", "change"): ("file_event", "file_change"),
    ("file", "deletion"): ("file_delete",),
    ("registry", "creation"): ("registry_event", "registry_add"),
    ("registry", "change"): ("registry_event", "registry_set"),
    ("registry", "deletion"): ("registry_event", "registry_delete"),
    ("library", "start"): ("image_load",),
    ("driver", "start"): ("driver_load",),
    ("dns", "info"): ("dns_query",),
    ("web", "access"): ("webserver",),
}

ECS_DATASETS: Mapping[str, RecordKind] = {
    # event.dataset, as Elastic's integrations name it
    "aws.cloudtrail": _kind("aws", "cloudtrail"),
    "azure.auditlogs": _kind("azure", "auditlogs"),
    "azure.signinlogs": _kind("azure", "signinlogs"),
    "azure.activitylogs": _kind("azure", "activitylogs"),
    "azure.identity_protection": _kind("azure", "riskdetection"),
    "gcp.audit": _kind("gcp", "gcp.audit"),
    "google_workspace.admin": _kind("gcp", "google_workspace.admin"),
    "google_workspace.login": _kind("gcp", "google_workspace.login"),
    "o365.audit": _kind("m365", "audit"),
    "okta.system": _kind("okta", "okta"),
    "github.audit": _kind("github", "audit"),
    "kubernetes.audit_logs": _kind("kubernetes", "audit", "application"),
    "nginx.access": _kind("", "nginx", "webserver"),
    "apache.access": _kind("", "apache", "webserver"),
    "iis.access": _kind("", "iis", "webserver"),
}
