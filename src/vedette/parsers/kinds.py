"""What a record is in the words of Sigma log sources, told by its channel, provider, event id or members: tables.
Counterpart: `parsers.recognise` reads records by them; `parsers.families` says whose records they are."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from vedette.model.events import RecordKind, Value

UNKNOWN = RecordKind()


def kind_of(product: str, services: str = "", categories: str = "") -> RecordKind:
    """A kind, its services and categories as words."""
    return RecordKind(product, frozenset(categories.split()), frozenset(services.split()))


# --------------------------------------------------------------------------------------------- our own

OWN_KINDS: Mapping[str, RecordKind] = {
    # event.dataset of what our own sources write
    "vedette.ports": kind_of("vedette", "ports"),
    "vedette.liveness": kind_of("vedette", "liveness"),
    "vedette.attacks": kind_of("vedette", "attacks"),
    "vedette.rootkit": kind_of("vedette", "rootkit"),
    "vedette.audit": kind_of("vedette", "audit"),
    "vedette.integrity": kind_of("vedette", "integrity"),
    "vedette.fleet": kind_of("vedette", "fleet"),
    "vedette.addresses": kind_of("vedette", "addresses"),
}


def own_kind(dataset: Value) -> RecordKind:
    """The kind of a record of our own; none where no source of ours writes such records."""
    return OWN_KINDS.get(dataset, UNKNOWN) if isinstance(dataset, str) else UNKNOWN


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
    "aws.cloudtrail": kind_of("aws", "cloudtrail"),
    "azure.auditlogs": kind_of("azure", "auditlogs"),
    "azure.signinlogs": kind_of("azure", "signinlogs"),
    "azure.activitylogs": kind_of("azure", "activitylogs"),
    "azure.identity_protection": kind_of("azure", "riskdetection"),
    "gcp.audit": kind_of("gcp", "gcp.audit"),
    "google_workspace.admin": kind_of("gcp", "google_workspace.admin"),
    "google_workspace.login": kind_of("gcp", "google_workspace.login"),
    "o365.audit": kind_of("m365", "audit"),
    "okta.system": kind_of("okta", "okta"),
    "github.audit": kind_of("github", "audit"),
    "kubernetes.audit_logs": kind_of("kubernetes", "audit", "application"),
    "nginx.access": kind_of("", "nginx", "webserver"),
    "apache.access": kind_of("", "apache", "webserver"),
    "iis.access": kind_of("", "iis", "webserver"),
}
