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
