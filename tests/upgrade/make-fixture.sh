#!/usr/bin/env bash
# Makes the state that an upgrade starts from, with the programs of a released version: a control plane's data directory and an
# agent's state directory, after the everyday things. What it made for 0.1.0 stands in fixtures/0.1.0; its keys are of a fleet
# that never was, and open nothing else.
#
#   tests/upgrade/make-fixture.sh BIN_DIR OUT     # needs a Docker Engine with the image serverflow-sample:1
set -euo pipefail

bin=${1:?the directory with the programs of that version}
out=${2:?where the two directories are to be made}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
pids=()
end() {
  ((${#pids[@]} == 0)) || kill "${pids[@]}" 2>/dev/null || true
  wait
  local fleet
  fleet=$(field fleet_id 2>/dev/null) || fleet=none
  docker ps --all --quiet --filter "label=io.serverflow.fleet=$fleet" | xargs --no-run-if-empty docker rm --force >/dev/null
  docker network ls --quiet --filter "label=io.serverflow.fleet=$fleet" | xargs --no-run-if-empty docker network rm >/dev/null
  rm -rf "$work"
}
trap end EXIT

port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
# until WHAT COMMAND…: a condition with a deadline.
until_true() {
  local what=$1 deadline=$((SECONDS + 60))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { echo "gave up waiting: $what" >&2; exit 1; }
    sleep 0.1
  done
}

agents=127.0.0.1:$(port) people=127.0.0.1:$(port) published=$(port)
"$bin/serverflow-control-plane" init --json --agent-address "$agents" --data-dir "$out/control-plane" >"$work/init.json"
field() { python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' "$work/init.json" "$1"; }
"$bin/serverflow-control-plane" serve --agent-listen "$agents" --http-listen "$people" --data-dir "$out/control-plane" \
  2>"$work/control-plane.log" &
pids+=($!)
export SERVERFLOW_URL=http://$people SERVERFLOW_TOKEN HOME=$work
SERVERFLOW_TOKEN=$(cat "$(field token_file)")
serverflow() { "$bin/serverflow" "$@"; }
until_true "the control plane answers" serverflow host list

enrol() {
  serverflow host enroll "$1" --role app --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])' >"$work/token"
  "$bin/serverflow-agent" enroll --token-file "$work/token" --state-dir "$2"
}
enrol web-1 "$out/agent"
enrol gone "$work/gone"
enrol away "$work/away"
"$bin/serverflow-agent" run --state-dir "$out/agent" 2>"$work/agent.log" &
pids+=($!)
connected() { serverflow host show "$1" --json | grep -q '"connected"'; }
until_true "the host is connected" connected web-1
# A host that was there once, and for which an order waits.
"$bin/serverflow-agent" run --state-dir "$work/away" 2>"$work/away.log" &
until_true "the other host is connected" connected away
kill $!
gone_offline() { ! connected away; }
until_true "the other host is away" gone_offline

compose() {
  cat >"$work/$1.yaml" <<YAML
services:
  web:
    image: serverflow-sample:1
    ports: ["127.0.0.1:$published:8080"]
    environment: { GREETING: "$2", FAIL: "$3" }
    stop_grace_period: 2s
    healthcheck: { test: ["CMD", "/sample", "check"], interval: 300ms, timeout: 5s, retries: 3 }
YAML
}
compose first "from 0.1" ""
compose second "never seen" "unhealthy"
serverflow app deploy --name upgrade-shop --host web-1 -f "$work/first.yaml"
serverflow app deploy --name upgrade-shop --host web-1 -f "$work/second.yaml" || echo "rolled back, as it should"
serverflow app logs upgrade-shop --service web --tail 5
serverflow action run host.facts --host web-1
serverflow action run host.facts --host away --queue-for 30d --detach
serverflow host revoke gone --yes
serverflow app remove upgrade-shop
serverflow audit verify --root "$out/control-plane/root.pub"
for pid in "${pids[@]}"; do
  kill "$pid"
  wait "$pid" || true
done
pids=()
# One file each: what stands in the write-ahead log goes into the database.
for database in "$out/control-plane/serverflow.db" "$out/agent/journal.db"; do
  python3 -c 'import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute("PRAGMA wal_checkpoint(TRUNCATE)")' "$database"
done
rm -f "$out"/control-plane/*.lock "$out"/agent/*.lock "$out/agent/status.json" "$out/control-plane/root.key.pem" "$out/control-plane/admin.token" "$out"/*/*.db-shm "$out"/*/*.db-wal
