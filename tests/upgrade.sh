#!/usr/bin/env bash
# From 0.1.0 to this version with real programs: the control plane first, under agents that stay behind; then the agents. Old
# programs are built from their commit, with the same target directory, so that dependencies are shared; where that commit is
# not in the clone's history the script says so and ends well. Needs a Docker Engine with the image serverflow-sample:1.
#
#   tests/upgrade.sh BIN_DIR          # SERVERFLOW_OLD_BIN_DIR names programs of 0.1.0 that are built already
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
new=$(cd "${1:?the directory with the programs}" && pwd)
released=a92eb04
target=${CARGO_TARGET_DIR:-$top/target}
work=$(mktemp -d)
declare -A running=()
fleet=none
end() {
  local status=$?
  ((${#running[@]} == 0)) || kill "${running[@]}" 2>/dev/null || true
  ((status == 0)) || tail -n 15 "$work"/*.log >&2 || true
  docker ps --all --quiet --filter "label=io.serverflow.fleet=$fleet" | xargs --no-run-if-empty docker rm --force >/dev/null
  docker network ls --quiet --filter "label=io.serverflow.fleet=$fleet" | xargs --no-run-if-empty docker network rm >/dev/null
  git -C "$top" worktree remove --force "$work/source" 2>/dev/null || true
  rm -rf "$work"
}
trap end EXIT

old=${SERVERFLOW_OLD_BIN_DIR:-$target/upgrade-bin/$released}
if [[ ! -x $old/serverflow-agent ]]; then
  if ! git -C "$top" cat-file -e "$released^{commit}" 2>/dev/null; then
    echo "upgrade: skipped: the commit of 0.1.0 ($released) is not in this clone's history"
    exit 0
  fi
  mkdir -p "$old"
  git -C "$top" worktree add --quiet --detach "$work/source" "$released"
  (
    cd "$work/source"
    export CARGO_TARGET_DIR=$target
    cargo build --locked --quiet --package serverflow-control-plane --package serverflow
    install -m 0755 "$target"/debug/serverflow{,-control-plane} "$old"
    cargo build --locked --quiet --package serverflow-agent
    install -m 0755 "$target/debug/serverflow-agent" "$old"
  )
fi
[[ $("$old/serverflow-agent" --version) == "serverflow-agent 0.1.0" ]]

fail() { echo "upgrade: FAILED: $1" >&2; exit 1; }
say() { echo "upgrade: $1"; }
until_true() {
  local what=$1 deadline=$((SECONDS + 60))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || fail "gave up waiting: $what"
    sleep 0.1
  done
  say "$what"
}
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
json() { python3 -c 'import functools, json, sys; print(functools.reduce(lambda it, key: it[key], sys.argv[1:], json.load(sys.stdin)))' "$@"; }

agents=127.0.0.1:$(port) people=127.0.0.1:$(port) published=$(port)
start() { # NAME COMMAND…
  local name=$1
  shift
  "$@" 2>>"$work/$name.log" &
  running[$name]=$!
}
stop() {
  kill "${running[$1]}"
  wait "${running[$1]}" || true
  unset "running[$1]"
}
control_plane() {
  start control-plane "$1/serverflow-control-plane" serve --agent-listen "$agents" --http-listen "$people" --data-dir "$work/data"
  until_true "the control plane of $("$1/serverflow-control-plane" --version | cut -d' ' -f2) answers" "$1/serverflow" host list
}
agent() { start "$2" "$1/serverflow-agent" run --state-dir "$work/$2"; }
enrol() {
  serverflow host enroll "$2" --role app --json | json token >"$work/token"
  "$1/serverflow-agent" enroll --token-file "$work/token" --state-dir "$work/$2" 2>>"$work/$2.log"
}
shows() { [[ $(serverflow host show "$1" --json | json status) == connected && $(serverflow host show "$1" --json | json agent_version) == "$2" ]]; }
serverflow() { "$cli/serverflow" "$@"; }

"$old/serverflow-control-plane" init --json --agent-address "$agents" --data-dir "$work/data" >"$work/init.json"
fleet=$(json fleet_id <"$work/init.json")
app=upgrade-${fleet: -12}
export SERVERFLOW_URL=http://$people SERVERFLOW_TOKEN HOME=$work
SERVERFLOW_TOKEN=$(cat "$(json token_file <"$work/init.json")")
cat >"$work/compose.yaml" <<YAML
services:
  web:
    image: serverflow-sample:1
    ports: ["127.0.0.1:$published:8080"]
    environment: { GREETING: "hello" }
    stop_grace_period: 2s
    healthcheck: { test: ["CMD", "/sample", "check"], interval: 300ms, timeout: 5s, retries: 3 }
YAML
deploy() { serverflow app deploy --quiet --name "$app" --host "$1" -f "$work/compose.yaml" >/dev/null; }

cli=$old
control_plane "$old"
enrol "$old" behind
agent "$old" behind
until_true "an agent of 0.1.0 under a control plane of 0.1.0" shows behind 0.1.0
deploy behind
version=$("$new/serverflow-agent" --version | cut -d' ' -f2)
enrol "$new" ahead
agent "$new" ahead
until_true "an agent of $version under a control plane of 0.1.0" shows ahead "$version"
serverflow action run host.facts --host ahead --quiet >/dev/null
say "it carries out what both have"

stop control-plane
cp -a "$work/data" "$work/backup"
cli=$new
control_plane "$new"
until_true "the agent of 0.1.0 comes back to the newer control plane" shows behind 0.1.0
serverflow host list | grep -q 0.1.0 || fail "the list of hosts does not show the agent's version"
serverflow action run host.facts --host behind --quiet >/dev/null
deploy behind
serverflow app logs "$app" --service web --tail 3 >/dev/null
stop behind
agent "$old" behind
until_true "it deploys, shows logs, and comes back after a restart" shows behind 0.1.0
if serverflow app stop "$app" >"$work/refused" 2>&1; then fail "app.stop was taken for an agent that does not have it"; fi
grep -qi "agent" "$work/refused" && grep -qi "upgrade\|newer\|update" "$work/refused" || fail "no words on what to do: $(cat "$work/refused")"
say "what it lacks is refused before it is sent: $(tail -n 1 "$work/refused")"

stop behind
agent "$new" behind
until_true "the agent upgraded in place" shows behind "$version"
serverflow app stop "$app" --quiet >/dev/null
serverflow app start "$app" --quiet >/dev/null
say "it does what its older self could not, with the app of then"
serverflow app remove "$app" --quiet >/dev/null
[[ ! -e $work/data/keys/command.key.pem && ! -e $work/data/signer.state ]] || fail "the command key was not moved"
[[ -n $(ls "$work"/data/signer/keys/*.key.pem) ]] || fail "the signer holds no key"
say "the command key is in the signer's own directory"
serverflow audit verify --root "$work/data/root.pub" >/dev/null 2>&1
say "the audit log of both verifies"

stop control-plane
if "$old/serverflow-control-plane" serve --agent-listen "$agents" --http-listen "$people" --data-dir "$work/data" 2>"$work/back"; then
  fail "an older control plane opened a newer database"
fi
# Versions before 0.3 look for the key first.
grep -q "newer control plane\|keys/command.key.pem" "$work/back" || fail "no words on what is newer: $(cat "$work/back")"
say "an older control plane refuses what a newer one has brought forward: see docs/UPGRADE.md for the way back"
