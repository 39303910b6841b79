#!/usr/bin/env bash
# The control plane's container, tried: the last stage of deploy/container/Dockerfile, over a root laid out from the program in
# BIN_DIR by the script that the Dockerfile uses (its first stage begins with an image that would have to be pulled). Started as
# compose.yaml says: no rights, read-only root, a volume, HTTPS. Health, sign-in, and an agent that runs an order.
#
#   tests/container.sh BIN_DIR
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin=$(cd "${1:?the directory with the programs}" && pwd)
work=$(mktemp -d)
name=serverflow-container-test-$$
agent=
end() {
  local status=$?
  [[ -z $agent ]] || kill "$agent" 2>/dev/null || true
  ((status == 0)) || docker logs "$name" 2>&1 | tail -n 20 >&2 || true
  docker rm --force --volumes "$name" >/dev/null 2>&1 || true
  docker volume rm "$name" >/dev/null 2>&1 || true
  docker image rm "$name" >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap end EXIT

until_true() {
  local what=$1 deadline=$((SECONDS + 90))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || { echo "container: gave up waiting: $what" >&2; exit 1; }
    sleep 0.2
  done
  echo "container: $what"
}
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

mkdir "$work/context"
"$top/deploy/container/layout.sh" "$bin/serverflow-control-plane" "$work/context/image"
sed -n '/^FROM scratch/,$p' "$top/deploy/container/Dockerfile" | sed 's|^COPY --from=build \(.*\)/image/|COPY \1image/|' >"$work/context/Dockerfile"
docker build --quiet --tag "$name" "$work/context" >/dev/null
echo "container: built, $(docker image inspect --format '{{.Size}}' "$name") bytes from a dev build"

agents=$(port) people=$(port)
data=/var/lib/serverflow/control-plane
options=(
  --volume "$name:/var/lib/serverflow" --read-only --tmpfs /tmp:size=16m,mode=1777 --cap-drop ALL
  --security-opt no-new-privileges:true
  --env SERVERFLOW_CONTROL_PLANE_HTTP_LISTEN=0.0.0.0:8443
  --env "SERVERFLOW_CONTROL_PLANE_HTTP_CERT=$data/people.cert.pem"
  --env "SERVERFLOW_CONTROL_PLANE_HTTP_KEY=$data/people.key.pem"
)
docker run --rm "${options[@]}" "$name" init --json --agent-address "127.0.0.1:$agents" >"$work/init.json"
docker run --rm "${options[@]}" "$name" certificate --name 127.0.0.1 >/dev/null
docker run --detach --name "$name" "${options[@]}" --publish "127.0.0.1:$agents:7443" --publish "127.0.0.1:$people:8443" \
  --health-interval 1s "$name" >/dev/null
is_healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$name") == healthy ]]; }
until_true "the engine finds it healthy" is_healthy
[[ $(docker inspect --format '{{.Config.User}}' "$name") == 65532:65532 ]]

docker cp "$name:$data/admin.token" "$work/token" && docker cp "$name:$data/people.cert.pem" "$work/cert.pem"
serverflow() {
  env -i PATH="$PATH" HOME="$work" SERVERFLOW_URL="https://127.0.0.1:$people" SERVERFLOW_TOKEN="$(cat "$work/token")" \
    "$bin/serverflow" "$@" --ca "$work/cert.pem"
}
until_true "people sign in over HTTPS" serverflow host list
serverflow host enroll inside --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["token"])' >"$work/join"
"$bin/serverflow-agent" enroll --token-file "$work/join" --state-dir "$work/agent" 2>"$work/agent.log"
"$bin/serverflow-agent" run --state-dir "$work/agent" 2>>"$work/agent.log" &
agent=$!
connected() { serverflow host show inside --json | grep -q '"connected"'; }
until_true "an agent connects" connected
serverflow action run host.facts --host inside --json >/dev/null
echo "container: an order is carried out"
docker stop --time 20 "$name" >/dev/null
[[ $(docker inspect --format '{{.State.ExitCode}}' "$name") == 0 ]]
echo "container: ends in order"
