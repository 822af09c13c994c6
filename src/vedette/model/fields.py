"""The one registry of field names: type, meaning, and whether an attacker writes its text.
Counterpart: parsers may give only these, rules may test only these, and blame heeds the mark."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class FieldType(StrEnum):
    """What a field's values are."""

    KEYWORD = "keyword"
    TEXT = "text"
    IP = "ip"
    LONG = "long"
    BOOLEAN = "boolean"
    DATE = "date"


@dataclass(frozen=True, slots=True)
class Field:
    """One field. `attacker_text`: its content may be chosen by whom we watch, so no block rests on it.

    `given_by`: the parsers or stages that set it (`header`, the service of a pattern file, `journal`, `derived`).
    """

    name: str
    type: FieldType
    meaning: str
    attacker_text: bool = False
    given_by: tuple[str, ...] = ()


_K, _T, _I, _L, _B, _D = (
    FieldType.KEYWORD,
    FieldType.TEXT,
    FieldType.IP,
    FieldType.LONG,
    FieldType.BOOLEAN,
    FieldType.DATE,
)
_ALL_AUTH = ("sshd", "sudo", "su", "pam", "shadow", "systemd-logind")
_LOGINS = (
    "dovecot",
    "dropbear",
    "exim",
    "haproxy",
    "mysqld",
    "named",
    "openvpn",
    "postfix",
    "proftpd",
    "pure-ftpd",
    "vsftpd",
    "apache",
    "nginx",
    "postgresql",
    "samba",
    "slapd",
    "squid",
    "unbound",
    "docker",
)
_ALL = (*_ALL_AUTH, *_LOGINS, "rsyslogd", "systemd-journald", "systemd", "auditd", "kernel")

FIELDS: dict[str, Field] = {
    field.name: field
    for field in (
        # every record
        Field("@timestamp", _D, "when it happened", given_by=("header",)),
        Field("event.created", _D, "when the agent read it", given_by=("header",)),
        Field("host.name", _K, "the name in the header (host.id says who read it)", given_by=("header", "journal")),
        Field("host.id", _K, "whose agent read the record", given_by=("header",)),
        Field("host.ip", _I, "the addresses of a host, as it has them", given_by=("addresses",)),
        Field("process.name", _K, "program, as the header names it", given_by=("header", "journal")),
        Field("process.pid", _L, "process id, as the header names it", given_by=("header", "journal")),
        Field("message", _T, "the message after the header", attacker_text=True, given_by=("header", "journal")),
        Field("event.original", _T, "the whole record", attacker_text=True, given_by=("header",)),
        Field("log.syslog.facility.code", _L, "facility of the PRI part", given_by=("header",)),
        Field("log.syslog.severity.code", _L, "severity of the PRI part", given_by=("header",)),
        Field("vedette.repeat", _L, "how many equal records this one stands for", given_by=("header",)),
        Field("vedette.service", _K, "log source the record belongs to", given_by=("header",)),
        Field("vedette.pattern", _K, "id of the pattern that gave the fields", given_by=("header",)),
        Field("vedette.trust", _K, "network, forgeable or attested", given_by=("header",)),
        # what happened
        Field("event.kind", _K, "event, metric, state (ECS)", given_by=_ALL),
        Field("event.category", _K, "ECS category: authentication, session, iam, process, network", given_by=_ALL),
        Field("event.action", _K, "what happened, past tense, prefixed by the service", given_by=_ALL),
        Field("event.outcome", _K, "success or failure", given_by=_ALL),
        Field("event.reason", _T, "why, as the program says it", attacker_text=True, given_by=_ALL),
        # who and from where
        Field(
            "source.ip",
            _I,
            "peer address, set only where the grammar admits one reading",
            given_by=("sshd", "pam", "auditd", "kernel", *_LOGINS),
        ),
        Field(
            "source.port",
            _L,
            "peer port",
            given_by=("sshd", "kernel", *_LOGINS),
        ),
        Field(
            "source.domain", _K, "peer name from a name service", attacker_text=True, given_by=("sshd", "pam", "mysqld")
        ),
        Field(
            "source.address",
            _K,
            "peer as written, name or address",
            attacker_text=True,
            given_by=("sshd", "pam", "auditd", "mysqld"),
        ),
        Field("destination.ip", _I, "own address the peer came to", given_by=("sshd", "auditd", "kernel")),
        Field("destination.address", _K, "address or name that was looked at", given_by=("ports",)),
        Field("network.transport", _K, "tcp or udp", given_by=("ports", "kernel")),
        Field("destination.port", _L, "own port the peer came to", given_by=("sshd", "ports", "auditd", "kernel")),
        Field(
            "vedette.source.candidates",
            _K,
            "addresses of the other readings; no key may use it",
            True,
            ("sshd", *_LOGINS),
        ),
        Field("vedette.source.prefix", _K, "/24 (IPv4) or /64 (IPv6) of source.ip", given_by=("derived",)),
        Field("vedette.source.prefix_56", _K, "/56 of an IPv6 source.ip", given_by=("derived",)),
        Field(
            "user.name",
            _K,
            "account named by the peer or acting",
            attacker_text=True,
            given_by=(*_ALL_AUTH, *_LOGINS, "auditd"),
        ),
        Field("user.id", _K, "numeric id of the account", given_by=("pam", "shadow", "sudo", "auditd")),
        Field("user.effective.name", _K, "account acted as", given_by=("sudo", "su", "pam")),
        Field("user.target.name", _K, "account acted upon", given_by=("shadow", "pam")),
        Field("user.target.id", _K, "numeric id of the account acted upon", given_by=("shadow", "pam")),
        Field("group.name", _K, "group acted upon", given_by=("shadow",)),
        Field("group.id", _K, "numeric id of the group acted upon", given_by=("shadow", "auditd")),
        # ssh
        Field("vedette.ssh.method", _K, "password, publickey, keyboard-interactive/pam, none, ...", given_by=("sshd",)),
        Field("vedette.ssh.user_known", _B, "whether the account exists here", given_by=("sshd",)),
        Field("vedette.ssh.preauth", _B, "written before authentication was complete", given_by=("sshd",)),
        Field("vedette.ssh.key_id", _K, "id written into a certificate", attacker_text=True, given_by=("sshd",)),
        Field("vedette.ssh.fingerprint", _K, "fingerprint of the key offered", given_by=("sshd",)),
        Field("vedette.ssh.key_type", _K, "type of the key offered", given_by=("sshd",)),
        Field("vedette.ssh.disconnect_code", _L, "reason code of a disconnect (RFC 4253, 11.1)", given_by=("sshd",)),
        Field("vedette.ssh.request", _T, "what a session was opened for", attacker_text=True, given_by=("sshd",)),
        Field("vedette.ssh.version", _K, "version string the client sent", attacker_text=True, given_by=("sshd",)),
        Field("vedette.ssh.connection", _K, "host, process id and peer port: one connection", given_by=("sshd",)),
        # sessions and commands
        Field("process.command_line", _T, "command as logged", attacker_text=True, given_by=("sudo", "auditd")),
        Field("process.working_directory", _K, "folder it was run in", attacker_text=True, given_by=("sudo", "auditd")),
        Field("process.tty.name", _K, "terminal", given_by=("sudo", "su", "pam", "shadow", "auditd")),
        Field("vedette.session.id", _K, "session id, or number of a connection", given_by=("systemd-logind", "slapd")),
        Field(
            "vedette.logging.lost",
            _L,
            "messages a logger says it lost",
            given_by=("rsyslogd", "systemd-journald", "kernel"),
        ),
        Field("vedette.pam.service", _K, "PAM service name", given_by=("pam",)),
        Field("vedette.pam.module", _K, "PAM module that spoke", given_by=("pam",)),
        Field("vedette.pam.ruser", _K, "user a PAM application says is asking", True, ("pam",)),
        Field("vedette.pam.opened_by", _K, "who opened the session, as PAM knows", True, ("pam",)),
        Field("vedette.pam.failures", _L, "failures counted into one message", given_by=("pam", "sudo")),
        Field("vedette.pam.type", _K, "PAM management group: auth, account, session, password", given_by=("pam",)),
        # what events in JSON, audit events and web server logs have besides, under ECS names
        Field("tags", _K, "keys of the audit rules that an event is of", given_by=("auditd",)),
        Field("user.audit.id", _K, "who logged in, whoever acts now", given_by=("auditd",)),
        Field("user.effective.id", _K, "numeric id of the account acted as", given_by=("auditd",)),
        Field("user.domain", _K, "domain of the account", True, ("json",)),
        Field("process.title", _T, "command line as the process has it now", True, ("auditd",)),
        Field("process.executable", _K, "the program's file", True, ("auditd", "json")),
        Field("process.entity_id", _K, "the process, whatever becomes of its id", given_by=("json",)),
        Field("process.parent.pid", _L, "process id of the parent", given_by=("auditd", "json")),
        Field("process.parent.name", _K, "name of the parent's program", True, ("json",)),
        Field("process.parent.executable", _K, "file of the parent's program", True, ("json",)),
        Field("process.parent.command_line", _T, "command line of the parent", True, ("json",)),
        Field("process.parent.entity_id", _K, "the parent, whatever becomes of its id", given_by=("json",)),
        Field("process.hash.md5", _K, "of the program's file", True, ("json",)),
        Field("process.hash.sha1", _K, "of the program's file", True, ("json",)),
        Field("process.hash.sha256", _K, "of the program's file", True, ("json",)),
        Field("process.pe.imphash", _K, "hash of what the program imports", True, ("json",)),
        Field("process.pe.original_file_name", _K, "what the program says it is called", True, ("json",)),
        Field("process.pe.product", _K, "of which product it says it is", True, ("json",)),
        Field("process.pe.company", _K, "whose it says it is", True, ("json",)),
        Field("process.pe.description", _T, "what it says it does", True, ("json",)),
        Field("process.pe.file_version", _K, "which version it says it is", True, ("json",)),
        Field("process.Ext.token.integrity_level_name", _K, "how much Windows lets it do", given_by=("json",)),
        Field("file.path", _K, "the file that was made, changed or loaded", True, ("auditd", "json", "integrity")),
        Field("file.name", _K, "its name, or that of a pipe", True, ("json",)),
        Field("file.pe.original_file_name", _K, "what the file says it is called", True, ("json",)),
        Field("file.pe.product", _K, "of which product it says it is", True, ("json",)),
        Field("file.pe.company", _K, "whose it says it is", True, ("json",)),
        Field("file.pe.description", _T, "what it says it does", True, ("json",)),
        Field("file.pe.file_version", _K, "which version it says it is", True, ("json",)),
        Field("dll.path", _K, "the library that was loaded", True, ("json",)),
        Field("dll.code_signature.signed", _K, "whether it is signed", given_by=("json",)),
        Field("registry.path", _K, "key and value of the registry", True, ("json",)),
        Field("registry.data.strings", _T, "what was written there", True, ("json",)),
        Field("powershell.file.script_block_text", _T, "what PowerShell ran", True, ("json",)),
        Field("destination.domain", _K, "name of the host connected to", True, ("json",)),
        Field("dns.question.name", _K, "name that was asked for", True, ("json",)),
        Field("dns.response_code", _K, "what the name server said", True, ("json",)),
        Field("event.code", _K, "the maker's number of what happened", given_by=("json",)),
        Field("event.provider", _K, "which part of the system says so", given_by=("json",)),
        Field("host.hostname", _K, "name of the host, as the event says", given_by=("json",)),
        Field("winlog.channel", _K, "event log", given_by=("json",)),
        Field("winlog.event_id", _L, "number of the event", given_by=("json",)),
        Field("winlog.provider_name", _K, "which part of Windows says so", given_by=("json",)),
        Field("winlog.computer_name", _K, "name of the computer", given_by=("json",)),
        Field("gcp.audit.service_name", _K, "service that was called", given_by=("json",)),
        Field("gcp.audit.method_name", _K, "its method", given_by=("json",)),
        Field("http.request.method", _K, "method", True, ("access",)),
        Field("http.request.referrer", _T, "page that led here, as the client says", True, ("access",)),
        Field("http.version", _K, "version of HTTP", True, ("access",)),
        Field("http.response.status_code", _L, "status", given_by=("access",)),
        Field("http.response.body.bytes", _L, "bytes sent", given_by=("access",)),
        Field("url.original", _T, "what was asked for, as written", True, ("access",)),
        Field("url.path", _T, "its path", True, ("access",)),
        Field("url.query", _T, "its query", True, ("access",)),
        Field("url.extension", _K, "its extension", True, ("access",)),
        Field("url.domain", _K, "virtual host", True, ("access",)),
        Field("user_agent.original", _T, "what the client says it is", True, ("access",)),
        Field("log.level", _K, "level, as an error log's line or OpenTelemetry names it", given_by=("access", "json")),
        # OpenTelemetry
        Field("trace.id", _K, "trace a log record belongs to", given_by=("json",)),
        Field("span.id", _K, "its span", given_by=("json",)),
        Field("event.severity", _L, "OpenTelemetry's number, 1 (trace) to 24 (fatal)", given_by=("json",)),
        Field("otel.scope.name", _K, "library that wrote a log record", given_by=("json",)),
        Field("otel.scope.version", _K, "its version", given_by=("json",)),
        # ports
        Field("vedette.ports.kind", _K, "in what way policy and what is seen disagree", given_by=("ports",)),
        Field("vedette.ports.level", _K, "how much that matters, a level's name", given_by=("ports",)),
        Field("vedette.ports.advice", _T, "what to do about it", attacker_text=True, given_by=("ports",)),
        Field("vedette.ports.since", _D, "since when it is so, as far as was looked", given_by=("ports",)),
        Field("vedette.ports.state", _K, "what a port is now that was something else before", given_by=("ports",)),
        Field("vedette.ports.before", _K, "what it was", given_by=("ports",)),
        Field("vedette.ports.namespace", _K, "network namespace a listener is in", given_by=("ports",)),
        Field("vedette.ports.firewall", _K, "what the host's own firewall does with others", given_by=("ports",)),
        Field("vedette.ports.firewall_rule", _T, "by which rule", given_by=("ports",)),
        Field("service.name", _K, "systemd unit, service of a log record", given_by=("ports", "json", "systemd")),
        Field("package.name", _K, "package of a listener's program", given_by=("ports",)),
        Field("process.start", _D, "since when the process runs", given_by=("ports",)),
        Field("vedette.ports.vantage", _K, "from where it was looked at", given_by=("ports",)),
        Field("vedette.ports.expected", _K, "open, closed or either, as policy says", given_by=("ports",)),
        Field("vedette.ports.seen", _K, "open, closed, filtered or unknown", given_by=("ports",)),
        Field("vedette.ports.why", _K, "what that rests on", given_by=("ports",)),
        Field("vedette.ports.service", _T, "what a service says it is", attacker_text=True, given_by=("ports",)),
        Field("vedette.ports.sources", _K, "networks that policy lets in", given_by=("ports",)),
        Field("vedette.ports.owner", _K, "who answers for the opening", given_by=("ports",)),
        Field("vedette.ports.reason", _T, "what the opening is for", given_by=("ports",)),
        Field("vedette.ports.origin", _K, "where in the policy the opening stands", given_by=("ports",)),
        # attacks
        Field("vedette.attacks.file", _K, "the attack file", given_by=("attacks",)),
        Field("vedette.attacks.line", _L, "where in it the scenario stands", given_by=("attacks",)),
        Field("vedette.attacks.feature", _K, "the name of its feature", given_by=("attacks",)),
        Field("vedette.attacks.scenario", _K, "its name, for a row of an outline with the row", given_by=("attacks",)),
        Field("vedette.attacks.tags", _K, "its tags, with @", given_by=("attacks",)),
        Field("vedette.attacks.verdict", _K, "passed, failed, vacuous, could-not-tell, removed", given_by=("attacks",)),
        Field("vedette.attacks.reason", _K, "why, one of docs/attacks.md", given_by=("attacks",)),
        Field("vedette.attacks.detail", _T, "the same in words", attacker_text=True, given_by=("attacks",)),
        Field("vedette.attacks.step", _T, "the step that decided", given_by=("attacks",)),
        Field("vedette.attacks.step_line", _L, "where in the file it stands", given_by=("attacks",)),
        Field("vedette.attacks.command", _T, "the command as written, no value filled in", given_by=("attacks",)),
        Field("vedette.attacks.exit_code", _L, "how the program ended", given_by=("attacks",)),
        Field("vedette.attacks.notes", _T, "what to know though it decided nothing", given_by=("attacks",)),
        # OSSEC's and Wazuh's decoders; what they find is `ossec.data.` and its name there
        Field("ossec.log", _T, "the record as OSSEC cuts its header off", attacker_text=True, given_by=("ossec",)),
        Field("ossec.program", _K, "program, as OSSEC reads the header", given_by=("ossec",)),
        Field("ossec.host", _K, "host, as OSSEC reads the header", given_by=("ossec",)),
        Field("ossec.decoder", _K, "decoder that knows the record", given_by=("ossec",)),
        Field("ossec.category", _K, "its type: syslog, web-log, ids, firewall", given_by=("ossec",)),
        Field("ossec.user", _K, "dstuser, else srcuser", attacker_text=True, given_by=("ossec",)),
        Field("ossec.first", _K, "what `fts` of the decoder looks at", attacker_text=True, given_by=("ossec",)),
        Field("ossec.location", _K, "source that was read", given_by=("ossec",)),
        Field("ossec.size", _L, "characters of `ossec.log`", given_by=("ossec",)),
        Field("ossec.minute", _L, "minute of the day, in the zone of the source", given_by=("ossec",)),
        Field("ossec.weekday", _L, "day of the week, 0 = Monday", given_by=("ossec",)),
        # rootkit
        Field("vedette.rootkit.kind", _K, "what was found, one of docs/rootkit.md", given_by=("rootkit",)),
        Field("vedette.rootkit.subject", _K, "what it is about", attacker_text=True, given_by=("rootkit",)),
        Field("vedette.rootkit.level", _K, "how much that matters, a level's name", given_by=("rootkit",)),
        Field("vedette.rootkit.detail", _T, "the same in words", attacker_text=True, given_by=("rootkit",)),
        Field("vedette.rootkit.since", _D, "since when it was told", given_by=("rootkit",)),
        Field("vedette.rootkit.count", _L, "processes that run it, or times it was missed", given_by=("rootkit",)),
        Field("vedette.rootkit.interface", _K, "network interface", attacker_text=True, given_by=("rootkit",)),
        Field("vedette.rootkit.module", _K, "kernel module", attacker_text=True, given_by=("rootkit",)),
        Field("vedette.rootkit.signature", _K, "which known rootkit", given_by=("rootkit",)),
        Field("vedette.rootkit.facts", _K, "what is there of a kind, key = value", True, ("rootkit",)),
        Field("vedette.rootkit.check", _K, "check that could not be made", given_by=("rootkit",)),
        Field("vedette.rootkit.reason", _K, "why it could not", given_by=("rootkit",)),
        # liveness
        Field("vedette.addresses.count", _L, "how many addresses a host has", given_by=("addresses",)),
        Field("vedette.liveness.kind", _K, "what is wrong with the watching", given_by=("liveness",)),
        Field("vedette.liveness.host_id", _K, "host or group it is about", given_by=("liveness",)),
        Field("vedette.liveness.stream", _K, "source it is about", given_by=("liveness",)),
        Field("vedette.liveness.reason", _T, "why, as far as is known", attacker_text=True, given_by=("liveness",)),
        Field("vedette.liveness.since", _D, "since when", given_by=("liveness",)),
        Field("vedette.liveness.count", _L, "records, batches, bytes, seconds or hosts", given_by=("liveness",)),
        Field("vedette.liveness.hosts", _K, "names of a group's hosts", given_by=("liveness",)),
        Field("vedette.liveness.host_ids", _K, "ids of a group's hosts that did not run on", given_by=("liveness",)),
        Field("vedette.liveness.resumed", _B, "the agent had run all the time", given_by=("liveness",)),
        # the fleet's control
        Field("vedette.fleet.number", _L, "number of a bundle of rules and policy", given_by=("vedette",)),
        Field("vedette.fleet.reason", _K, "why, in one word", given_by=("vedette",)),
        Field("vedette.fleet.words", _T, "why, for people", attacker_text=True, given_by=("vedette",)),
        Field("vedette.fleet.decision", _K, "id of a block of the fleet", given_by=("vedette",)),
        Field("vedette.fleet.target", _K, "what it blocks", given_by=("vedette",)),
        # integrity
        Field("file.type", _K, "file, dir, symlink, fifo, socket, block or character", given_by=("integrity",)),
        Field("file.mode", _K, "permission bits, four octal digits", given_by=("integrity",)),
        Field("file.uid", _K, "numeric id of its owner", given_by=("integrity",)),
        Field("file.gid", _K, "numeric id of its group", given_by=("integrity",)),
        Field("file.owner", _K, "name of its owner", given_by=("integrity",)),
        Field("file.group", _K, "name of its group", given_by=("integrity",)),
        Field("file.size", _L, "bytes", given_by=("integrity",)),
        Field("file.mtime", _D, "when it was written, as it says", given_by=("integrity",)),
        Field("file.ctime", _D, "when anything about it was changed", given_by=("integrity",)),
        Field("file.inode", _K, "its number in the file system", given_by=("integrity",)),
        Field("file.hash.sha256", _K, "of what is in it", given_by=("integrity",)),
        Field("file.target_path", _K, "what a link names", attacker_text=True, given_by=("integrity",)),
        Field("vedette.integrity.kind", _K, "added, removed or changed", given_by=("integrity",)),
        Field("vedette.integrity.attributes", _K, "what differs (model Attribute)", given_by=("integrity",)),
        Field("vedette.integrity.related", _K, "the other path of a rename", True, ("integrity",)),
        Field("vedette.integrity.unread", _K, "why there is no digest (model Unread)", given_by=("integrity",)),
        Field("vedette.integrity.parents", _K, "programs it was started by, nearest first", True, ("integrity",)),
        Field("vedette.integrity.login_user", _K, "who logged in, whoever acts now", given_by=("integrity",)),
        Field("vedette.integrity.verdict", _K, "vouched, hint or contradicted", given_by=("integrity",)),
        Field("vedette.integrity.vouched_by", _K, "what speaks for it or against it", given_by=("integrity",)),
        Field("vedette.integrity.vouched_detail", _T, "how, for people", True, ("integrity",)),
        Field("vedette.integrity.expected_sha256", _K, "what should be in it", given_by=("integrity",)),
        Field("vedette.integrity.before.sha256", _K, "what was in it", given_by=("integrity",)),
        Field("vedette.integrity.before.size", _L, "how long it was", given_by=("integrity",)),
        Field("vedette.integrity.before.type", _K, "what it was", given_by=("integrity",)),
        Field("vedette.integrity.before.mode", _K, "permission bits before", given_by=("integrity",)),
        Field("vedette.integrity.before.uid", _K, "its owner before", given_by=("integrity",)),
        Field("vedette.integrity.before.gid", _K, "its group before", given_by=("integrity",)),
        Field("vedette.integrity.before.target", _K, "what it named before", True, ("integrity",)),
        Field("vedette.integrity.before.links", _L, "how many names it had", given_by=("integrity",)),
        Field("vedette.integrity.before.mtime", _D, "when it said before it was written", given_by=("integrity",)),
        Field("vedette.integrity.count", _L, "paths, changes or events it is about", given_by=("integrity",)),
        Field("vedette.integrity.reason", _K, "why something was not looked at", given_by=("integrity",)),
        Field("vedette.integrity.watched_by", _K, "fanotify, inotify or scans", given_by=("integrity",)),
        Field("vedette.integrity.digest", _K, "SHA-256 of the baseline's file", given_by=("integrity",)),
        Field("vedette.integrity.change", _K, "the same for the same change of any host", given_by=("integrity",)),
        Field("vedette.integrity.accepted_by", _K, "who accepted a change", given_by=("integrity",)),
        Field("vedette.integrity.diff", _T, "lines that changed, secrets masked", True, ("integrity",)),
        Field("package.version", _K, "version of the package", given_by=("integrity",)),
        # audit
        Field("vedette.audit.role", _K, "role in which a command ran", given_by=("audit",)),
        Field("vedette.audit.token", _K, "named token or its id", given_by=("audit",)),
        Field("vedette.audit.name", _T, "what a token is for", attacker_text=True, given_by=("audit",)),
        Field("vedette.audit.command", _K, "command, without what it was given", given_by=("audit",)),
        Field("vedette.audit.arguments", _T, "what it was given, secrets masked", True, ("audit",)),
        Field("vedette.audit.code", _L, "how it ended: 0, 1 (something found), 2", given_by=("audit",)),
        Field("vedette.audit.needed", _K, "role that was needed", given_by=("audit",)),
        Field("vedette.audit.reason", _T, "why, given by a person or as LoginReason", True, ("audit",)),
        Field("vedette.audit.place", _K, "from where somebody logged in", given_by=("audit",)),
        Field("vedette.audit.operator", _K, "operator it is about", given_by=("audit",)),
        Field("vedette.audit.rule", _K, "rule whose step changed", given_by=("audit",)),
        Field("vedette.audit.before", _K, "role or step before", given_by=("audit",)),
        Field("vedette.audit.after", _K, "role or step since", given_by=("audit",)),
        Field("vedette.audit.bytes", _L, "how long the audit is", given_by=("audit",)),
        Field("vedette.audit.bytes_before", _L, "how long it was", given_by=("audit",)),
        Field("vedette.audit.records", _L, "records that were erased", given_by=("audit",)),
        Field("vedette.audit.batches", _L, "batches they were of", given_by=("audit",)),
    )
}


def is_attacker_text(field: str) -> bool:
    """Whether `field` may hold text chosen by an attacker; a field nobody declared counts as such."""
    declared = FIELDS.get(field)
    return declared is None or declared.attacker_text
