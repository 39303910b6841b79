#!/usr/bin/env bash
# The Debian packages, tried: built from the programs in BIN_DIR, judged by lintian and systemd-analyze, then installed,
# upgraded, removed and purged in a throw-away root: an overlay over this machine's own, in a mount namespace, which vanishes
# with the script. Needs root and dpkg; says what it leaves out where lintian or systemd are not installed.
#
#   tests/packages.sh BIN_DIR
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=${1:?the directory with the programs}

if [[ ${2-} != inside ]]; then
  if ((EUID != 0)) || ! command -v dpkg-deb dpkg-shlibdeps strip >/dev/null; then
    echo "packages: skipped: needs root, dpkg-dev and binutils"
    exit 0
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  export SERVERFLOW_DEB_COMPRESSION='-Zgzip -z1'
  "$top/deploy/packages/build.sh" "$bin" "$work/first"
  "$top/deploy/packages/build.sh" --version 99.0.0 "$bin" "$work/second"
  if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error,warning "$work"/first/*.deb
    echo "packages: lintian is content"
  else
    echo "packages: lintian is not installed: not asked"
  fi
  mkdir "$work/layers"
  unshare --mount --propagation private --pid --fork --kill-child bash "${BASH_SOURCE[0]}" "$work" inside
  exit
fi

# Within the namespace: nothing that is mounted or written here is seen outside.
work=$bin
server=
signer=
mount -t tmpfs tmpfs "$work/layers"
mkdir "$work"/layers/{upper,work,root}
root=$work/layers/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layers/upper,workdir=$work/layers/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir "$root/run/packages"
mount --bind "$work" "$root/run/packages"

within() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"; }
check() {
  local what=$1
  shift
  "$@" >/dev/null || { echo "packages: FAILED: $what" >&2; exit 1; }
  echo "packages: $what"
}
is_not() { ! "$@" 2>/dev/null; }
install_all() { within sh -c "dpkg --install /run/packages/$1/*.deb" >"$work/dpkg.log" 2>&1 || { cat "$work/dpkg.log" >&2; return 1; }; }

check "installs" install_all first
check "the users are there" within sh -c 'getent passwd serverflow && getent passwd serverflow-signer'
check "the state directory is the user's alone" \
  within sh -c '[ "$(stat --format "%U %a" /var/lib/serverflow)" = "serverflow 700" ]'
check "man pages are found" within sh -c 'ls /usr/share/man/man8/serverflow-agent-enroll.8.gz /usr/share/man/man1/serverflow.1.gz'
check "completions are shell" within bash -n /usr/share/bash-completion/completions/serverflow
if within sh -c 'command -v systemd-analyze' >/dev/null; then
  check "the units are valid" within systemd-analyze verify \
    /lib/systemd/system/serverflow-agent.service /lib/systemd/system/serverflow-control-plane.service \
    /lib/systemd/system/serverflow-signer.service
  for unit in serverflow-agent serverflow-control-plane serverflow-signer; do
    within systemd-analyze security --offline=true "/lib/systemd/system/$unit.service" | tail -n 1 | sed "s/^/packages: $unit: /" || true
  done
fi

ports=$(python3 -c 'import socket
held = [socket.socket() for _ in range(2)]
for one in held: one.bind(("127.0.0.1", 0))
print(*(one.getsockname()[1] for one in held))')
read -r agents people <<<"$ports"
configuration=/etc/serverflow/control-plane.toml
within sh -c "printf 'agent_listen = \"127.0.0.1:$agents\"\nhttp_listen = \"127.0.0.1:$people\"\n' >>$configuration"
as_user() { within setpriv --reuid serverflow --regid serverflow --clear-groups "$@"; }
# As serverflow-signer.service does: its own user, the group of those who may come.
sign() {
  within install -d -o serverflow-signer -g serverflow -m 0750 /run/serverflow-signer
  (exec chroot "$root" env -i PATH=/usr/bin setpriv --reuid serverflow-signer --regid serverflow --clear-groups \
    serverflow-control-plane signer --signer-dir /var/lib/serverflow-signer --signer-socket /run/serverflow-signer/signer.sock \
    --signer-allow serverflow 2>>"$work/signer.log") &
  signer=$!
  local deadline=$((SECONDS + 60))
  until within test -S /run/serverflow-signer/signer.sock; do
    ((SECONDS < deadline)) || { cat "$work/signer.log" >&2; return 1; }
    sleep 0.2
  done
}
check "without its signer no fleet is made" is_not as_user serverflow-control-plane init --json --config "$configuration"
sign
check "its user makes a fleet" as_user serverflow-control-plane init --json --config "$configuration"
serve() {
  (exec chroot "$root" env -i PATH=/usr/bin setpriv --reuid serverflow --regid serverflow --clear-groups \
    serverflow-control-plane serve --config "$configuration" 2>"$work/serve.log") &
  server=$!
  local deadline=$((SECONDS + 60))
  until as_user serverflow-control-plane health --config "$configuration" 2>/dev/null; do
    ((SECONDS < deadline)) || { cat "$work/serve.log" >&2; return 1; }
    sleep 0.2
  done
}
stop() { kill "$server" && wait "$server"; }
stop_signer() {
  kill "$signer" && wait "$signer"
  within rm -f /run/serverflow-signer/signer.sock
}
serve
check "it runs and is well" as_user serverflow-control-plane health --config "$configuration"
check "its user cannot look at the signer's keys" is_not as_user ls /var/lib/serverflow-signer/keys
check "nobody else reaches the signer" is_not within setpriv --reuid nobody --regid nogroup --clear-groups ls /run/serverflow-signer
stop
check "without it, health says so" is_not as_user serverflow-control-plane health --config "$configuration"
within mkdir -p /var/lib/serverflow-agent

stop_signer

# As versions before the signer had its own user left it.
old=/var/lib/serverflow/control-plane
within sh -c "mv /var/lib/serverflow-signer/keys/*.key.pem $old/keys/command.key.pem && mv /var/lib/serverflow-signer/sequences $old/signer.state &&
  rm -rf /var/lib/serverflow-signer && chown serverflow:serverflow $old/keys/command.key.pem $old/signer.state"
check "upgrades" install_all second
check "the command key is the signer's user's now" within sh -c "! test -e $old/keys/command.key.pem && ! test -e $old/signer.state &&
  [ \"\$(stat --format '%U %a' /var/lib/serverflow-signer/incoming/keys/command.key.pem)\" = 'serverflow-signer 600' ]"
sign
check "what was set up stays" within grep -q "$people" "$configuration"
serve
check "the fleet runs under the newer package" as_user serverflow-control-plane health --config "$configuration"
check "its signer took the key up" within sh -c 'ls /var/lib/serverflow-signer/keys/*.key.pem && ! test -e /var/lib/serverflow-signer/incoming/keys/command.key.pem'
stop
stop_signer

names=(serverflow serverflow-agent serverflow-control-plane)
check "removes" within dpkg --remove "${names[@]}"
check "programs and units are gone" is_not within sh -c \
  'ls -d /usr/bin/serverflow* /lib/systemd/system/serverflow* /usr/share/man/man?/serverflow* | grep .'
check "configuration and state stay" within sh -c "test -e $configuration && test -d /var/lib/serverflow/control-plane/keys && test -d /var/lib/serverflow-signer/keys"
check "purges" within dpkg --purge "${names[@]}"
check "the configuration is gone" is_not within test -e /etc/serverflow
check "the host's identity is gone" is_not within test -e /var/lib/serverflow-agent
check "a fleet's keys are not" within sh -c "test -d /var/lib/serverflow/control-plane/keys && test -d /var/lib/serverflow-signer/keys"
