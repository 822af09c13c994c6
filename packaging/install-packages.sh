#!/bin/sh
# Installs the Debian packages named in the given lists: only those missing, as root, without starting any service.
# Where that cannot be done it says so and ends well: what needs the packages then fails by itself, with their names.
set -eu

wanted=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@")
missing=
for package in $wanted; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) || status=none
    [ "$status" = installed ] || missing="$missing $package"
done

if [ -z "$missing" ]; then
    echo "packages: all of" $wanted "are here"
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "packages: this is not Debian; install by hand what is like:$missing"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "packages: not root, going on without:$missing"
    exit 0
fi

# Exit code 101 of policy-rc.d is "action forbidden by policy": invoke-rc.d then starts nothing.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] && [ ! -L "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
elif ! grep -q 'exit 101' "$policy"; then
    echo "packages: $policy is not ours and may let services start; not installing:$missing"
    exit 0
fi

echo "packages: installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 update
apt-get -qq -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 install -y --no-install-recommends $missing
