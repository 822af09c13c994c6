import subprocess
import sys

import pytest

PROGRAM = """
import os
from vedette.system.privileges import CAP_DAC_READ_SEARCH, keep_only
keep_only([CAP_DAC_READ_SEARCH], uid=65534, gid=65534, groups=[4])
print(os.getresuid(), os.getgroups())
print(len(open("/etc/shadow").read()) > 0)
for act in (lambda: open("/etc/shadow", "a"), lambda: os.setuid(0), lambda: os.kill(1, 0)):
    try:
        act()
        print("allowed")
    except PermissionError:
        print("refused")
print([line.split()[1] for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))])
"""


@pytest.mark.root
def test_what_is_kept_works_and_nothing_else() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "(65534, 65534, 65534) [4]",
        "True",
        "refused",
        "refused",
        "refused",
        "['0000000000000004', '0000000000000004', '1']",
    ]


CHILDREN = """
import subprocess, sys, threading
from vedette.system.privileges import CAP_DAC_READ_SEARCH, keep_from_children, keep_only
keep_only([CAP_DAC_READ_SEARCH], uid=65534, gid=65534)
SAY = [sys.executable, "-c", "print([one.split()[1] for one in open('/proc/self/status') if one.startswith('CapEff')])"]
def start():
    print(subprocess.run(SAY, capture_output=True, text=True, check=True).stdout.strip())
def without():
    keep_from_children()
    start()
    print(len(open("/etc/shadow").read()) > 0)
start()
thread = threading.Thread(target=without)
thread.start()
thread.join()
start()
"""


@pytest.mark.root
def test_programs_of_a_thread_that_keeps_its_capabilities_to_itself_get_none() -> None:
    done = subprocess.run([sys.executable, "-c", CHILDREN], capture_output=True, text=True, check=True)
    kept, none = "['0000000000000004']", "['0000000000000000']"
    assert done.stdout.splitlines() == [kept, none, "True", kept]
