"""The attack aliases that Gauntlt ships: a name for a command, with the names a profile must give it.
Counterpart: `steps` looks a step `I launch an "nmap-fast" attack` up here."""

from __future__ import annotations

from collections.abc import Mapping

_ONE_LEVEL = "--scope-directory-depth-limit=1 --scope-page-limit=10 --scope-auto-redundant=2"
_HARMLESS = (
    "interesting_responses",
    "webdav",
    "localstart_asp",
    "directory_listing",
    "private_ip",
    "form_upload",
    "cvs_svn_users",
    "captcha",
    "http_only_cookies",
    "html_objects",
    "emails",
    "cookie_set_for_parent_domain",
    "common_files",
    "allowed_methods",
)
"""What arachni finds and rates low or informational."""

ALIASES: Mapping[str, str] = {
    "nmap-fast": "nmap -F <host>",
    "nmap-single_port": "nmap -p<port> <host>",
    # Gauntlt leaves 65535 out; that is how files in use understand it.
    "nmap-all_tcp": "nmap -Pn -p 1-65534 <host>",
    "nmap-scan_hostnames": "nmap -sL <host>/24",
    "nmap-arp_scan_network_no_portscan": "nmap -PR -sn <host>/24",
    "nmap-arp_scan_network_with_portscan": "nmap -PR <host>/24",
    "nmap-portscan_tcp_udp_top100": "nmap -sTU --top-ports 100 <host>",
    "nmap-portscan_tcp_udp_top1000": "nmap -sTU --top-ports 1000 <host>",
    "arachni-simple_xss": f"arachni --checks=xss {_ONE_LEVEL} <url>",
    "arachni-simple_xss-1.0.6": "arachni --modules=xss <url>",
    "arachni-simple_xss-1.3.2": "arachni --check=xss <url>",
    "arachni-simple_xss_with_depth": "arachni --checks=xss --scope-directory-depth-limit=<depth> <url>",
    "arachni-full_xss": f"arachni --checks=xss* {_ONE_LEVEL} <url>",
    "arachni-full_xss_with_depth": "arachni --checks=xss* --scope-directory-depth-limit=<depth> <url>",
    "arachni-xss_with_options": (
        "arachni --checks=xss* --scope-directory-depth-limit=<depth> --scope-page-limit=<link_count> "
        "--scope-auto-redundant=<auto_redundant> <url>"
    ),
    "arachni-allmediumandhigher": f"arachni --checks=*,{','.join(f'-{one}' for one in _HARMLESS)} <url>",
    "dirb-apache-vulns": "dirb --list apache.txt <host>",
}
