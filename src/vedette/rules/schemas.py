"""What records of well-known log sources hold, as their makers document it: names of fields, and arrays of objects.
Counterpart: `lint` tells rules that ask for what is not there; parsers hand such records through as they are."""

from __future__ import annotations

from vedette.model.rules import LogSource


def _named(words: str) -> frozenset[str]:
    return frozenset(words.split())


_HEADER = _named(
    "EventID Channel Provider_Name Provider_Guid Computer Level Task Opcode Keywords EventRecordID Version UserID "
    "EventType RuleName UtcTime"
)
"""What Windows puts on every event, and Sysmon on every one of its own."""
_PROCESS = _named(
    "ProcessGuid ProcessId Image FileVersion Description Product Company OriginalFileName CommandLine CurrentDirectory "
    "User LogonGuid LogonId TerminalSessionId IntegrityLevel Hashes ParentProcessGuid ParentProcessId ParentImage "
    "ParentCommandLine ParentUser"
)
_HASHES = _named("md5 sha1 sha256 Imphash imphash")
"""Names under which field pipelines split `Hashes`."""
# Security event 4688 says the same of a process under names of its own, which pipelines map.
_SECURITY = _named(
    "NewProcessId NewProcessName TokenElevationType ProcessName MandatoryLabel SubjectUserSid SubjectUserName "
    "SubjectDomainName SubjectLogonId TargetUserSid TargetUserName TargetDomainName TargetLogonId "
    "ParentProcessName"
)
_REGISTRY = _named("ProcessGuid ProcessId Image TargetObject Details NewName User")

WINDOWS: dict[str, frozenset[str]] = {
    category: fields | _HEADER
    for category, fields in {
        "process_creation": _PROCESS | _HASHES | _SECURITY,
        "file_change": _named(
            "ProcessGuid ProcessId Image TargetFilename CreationUtcTime PreviousCreationUtcTime User"
        ),
        "network_connection": _named(
            "ProcessGuid ProcessId Image User Protocol Initiated SourceIsIpv6 SourceIp SourceHostname SourcePort "
            "SourcePortName DestinationIsIpv6 DestinationIp DestinationHostname DestinationPort "
            "DestinationPortName"
        ),
        "process_termination": _named("ProcessGuid ProcessId Image User"),
        "driver_load": _named("ImageLoaded Hashes Signed Signature SignatureStatus") | _HASHES,
        "image_load": _named(
            "ProcessGuid ProcessId Image ImageLoaded FileVersion Description Product Company OriginalFileName Hashes "
            "Signed Signature SignatureStatus User"
        )
        | _HASHES,
        "create_remote_thread": _named(
            "SourceProcessGuid SourceProcessId SourceImage TargetProcessGuid TargetProcessId TargetImage NewThreadId "
            "StartAddress StartModule StartFunction SourceUser TargetUser"
        ),
        "raw_access_thread": _named("ProcessGuid ProcessId Image Device User"),
        "process_access": _named(
            "SourceProcessGUID SourceProcessId SourceThreadId SourceImage TargetProcessGUID TargetProcessId "
            "TargetImage GrantedAccess CallTrace SourceUser TargetUser"
        ),
        "file_event": _named("ProcessGuid ProcessId Image TargetFilename CreationUtcTime User"),
        "registry_event": _REGISTRY,
        "registry_add": _REGISTRY - {"Details", "NewName"},
        "registry_delete": _REGISTRY - {"Details", "NewName"},
        "registry_set": _REGISTRY - {"NewName"},
        "registry_rename": _REGISTRY - {"Details"},
        "create_stream_hash": _named("ProcessGuid ProcessId Image TargetFilename CreationUtcTime Hash Contents User")
        | _HASHES,
        "pipe_created": _named("ProcessGuid ProcessId PipeName Image User"),
        "wmi_event": _named("Operation User EventNamespace Name Query Type Destination Consumer Filter"),
        "dns_query": _named("ProcessGuid ProcessId QueryName QueryStatus QueryResults Image User"),
        "file_delete": _named("ProcessGuid ProcessId User Image TargetFilename Hashes IsExecutable Archived") | _HASHES,
        "file_delete_detected": _named("ProcessGuid ProcessId User Image TargetFilename Hashes IsExecutable") | _HASHES,
        "clipboard_capture": _named("ProcessGuid ProcessId Image Session ClientInfo Hashes Archived User") | _HASHES,
        "process_tampering": _named("ProcessGuid ProcessId Image Type User"),
        "file_block_executable": _named("ProcessGuid ProcessId User Image TargetFilename Hashes") | _HASHES,
        "file_executable_detected": _named("ProcessGuid ProcessId User Image TargetFilename Hashes") | _HASHES,
        "ps_script": _named("MessageNumber MessageTotal ScriptBlockText ScriptBlockId Path"),
        "ps_module": _named("ContextInfo UserData Payload"),
    }.items()
}
"""Category of Windows -> fields of its events: Sysmon 15's manifest, PowerShell 4103 and 4104, Security 4688."""

_SINGLE_EXCEPT = frozenset({"Data", "Keywords", "Hashes"})
"""Windows event data may repeat these; every other name stands once in an event."""

ARRAYS: dict[tuple[str, str], tuple[str, ...]] = {
    ("aws", "cloudtrail"): (
        "resources",
        "requestParameters.ipPermissions.items",
        "requestParameters.ipPermissions.items.ipRanges.items",
        "requestParameters.containerDefinitions",
        "requestParameters.layers",
        "requestParameters.instancesSet.items",
        "requestParameters.tagSet.items",
        "responseElements.instancesSet.items",
    ),
    ("azure", "auditlogs"): (
        "targetResources",
        "targetResources.modifiedProperties",
        "TargetResources",
        "TargetResources.modifiedProperties",
        "TargetResources.ModifiedProperties",
        "properties.targetResources",
        "properties.targetResources.modifiedProperties",
        "additionalDetails",
    ),
    ("gcp", "gcp.audit"): ("data.protoPayload.authorizationInfo", "protoPayload.authorizationInfo"),
    ("gcp", "google_workspace.login"): ("protoPayload.metadata.event", "protoPayload.metadata.event.parameter"),
    ("kubernetes", "audit"): (
        "requestObject.spec.containers",
        "requestObject.spec.containers.env",
        "requestObject.spec.volumes",
        "requestObject.rules",
        "requestObject.subjects",
        "responseObject.spec.containers",
        "responseObject.rules",
        "responseObject.subjects",
    ),
    ("m365", "audit"): ("Parameters", "OperationProperties", "ExtendedProperties", "ModifiedProperties"),
    ("okta", "okta"): ("target",),
}
"""(product, service) -> paths that are arrays of objects in its records."""


def known_fields(logsource: LogSource) -> frozenset[str] | None:
    """The fields of a log source's records; None where no one list holds them all."""
    return WINDOWS.get(logsource.category) if logsource.product == "windows" else None


def single(logsource: LogSource, field: str) -> bool | None:
    """Whether `field` has at most one value in records of `logsource`; None where that is not known."""
    if logsource.product == "windows":
        return field not in _SINGLE_EXCEPT and "." not in field
    if field in WINDOWS.get(logsource.category, ()):
        return True
    return None


def array_of(logsource: LogSource, field: str) -> str:
    """The longest path to an array of objects that `field` lies in, "" where there is none known."""
    inside = [path for path in ARRAYS.get((logsource.product, logsource.service), ()) if field.startswith(path + ".")]
    return max(inside, key=len, default="")
