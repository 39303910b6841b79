#!/usr/bin/env bash
# ServerFlow on one machine, from a fresh checkout: a control plane, this machine enrolled as host `local`, and a sample app
# that runs because a signed command said so.
#
#   ./deploy/quickstart.sh [--agent-port 7443] [--http-port 8080]
#                                      set up and start everything; run it again whenever you like
#   ./deploy/quickstart.sh down        stop what it started; data and the sample app stay
#   ./deploy/quickstart.sh down --purge
#                                      also remove the sample app, its image, and all data with every key
#
# Needs Debian 12 or Ubuntu 24.04, git, curl, and root or sudo. What is missing is installed: a C compiler, a Rust toolchain,
# Docker Engine from the distribution when no engine answers. State lies in .serverflow at the top of the checkout, or where
# SERVERFLOW_HOME says. CARGO_TARGET_DIR is honoured.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=lib/say.sh
source "$top/deploy/lib/say.sh"
# shellcheck source=lib/system.sh
source "$top/deploy/lib/system.sh"
# shellcheck source=lib/toolchain.sh
source "$top/deploy/lib/toolchain.sh"
# shellcheck source=lib/docker.sh
source "$top/deploy/lib/docker.sh"

host_name=local
app_name=sample
app_image=serverflow-sample:1
# On everything that an agent makes in Docker, with the fleet's id as its value.
fleet_label=io.serverflow.fleet
compose_file=$top/deploy/sample/compose.yaml
programs=(serverflow-control-plane serverflow serverflow-agent)

home=${SERVERFLOW_HOME:-$top/.serverflow}
[[ $home == /* ]] || home=$PWD/$home
marker=$home/.serverflow-quickstart
settings=$home/settings
bin=$home/bin
data=$home/control-plane
agent_state=$home/agent
log=$home/log
run=$home/run
secrets=$home/secrets-not-yet-shown.json
env_file=$home/env

usage() { sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"; }

# ---- arguments ------------------------------------------------------------------------------------------------------------

verb=up purge=no agent_port='' http_port=''

port_argument() {
  if [[ ! ${2-} =~ ^[0-9]{1,5}$ ]] || ((10#$2 < 1 || 10#$2 > 65535)); then
    die "$1 wants a port from 1 to 65535, not '${2-}'"
  fi
}

parse_arguments() {
  while (($# > 0)); do
    case $1 in
      up | down) verb=$1 ;;
      --purge) purge=yes ;;
      --agent-port) port_argument "$@" && agent_port=$((10#$2)) && shift ;;
      --agent-port=*) port_argument --agent-port "${1#*=}" && agent_port=$((10#${1#*=})) ;;
      --http-port) port_argument "$@" && http_port=$((10#$2)) && shift ;;
      --http-port=*) port_argument --http-port "${1#*=}" && http_port=$((10#${1#*=})) ;;
      -h | --help | help)
        usage
        exit 0
        ;;
      *) die "unknown argument: $1" "See $0 --help." ;;
    esac
    shift
  done
  [[ $purge == no || $verb == down ]] || die "--purge belongs to down" "Did you mean: $0 down --purge"
  [[ $verb == up || -z $agent_port$http_port ]] || die "down takes no ports; it knows them"
}

# ---- small things ---------------------------------------------------------------------------------------------------------

# setting NAME: what an earlier run recorded, or nothing. setting_set NAME VALUE records it.
setting() { [[ ! -r $settings ]] || sed -n "s/^$1=//p" "$settings"; }
setting_set() {
  { [[ ! -r $settings ]] || sed "/^$1=/d" "$settings"; printf '%s=%s\n' "$1" "$2"; } >"$settings.new"
  mv "$settings.new" "$settings"
}

# json_field NAME: the first string of that name in the JSON document on standard input. Our programs' documents only: the
# names are known and no value in question holds an escape.
json_field() { tr -d '\n' | sed -n "s/.*\"$1\"[[:space:]]*:[[:space:]]*\"\([^\"]*\)\".*/\1/p"; }

# Single quotes for a file that any shell may source.
quoted() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

docker_() { ${docker_run[@]+"${docker_run[@]}"} docker "$@"; }

control_plane_runs() { pid_file_running "$run/control-plane.pid" >/dev/null; }
agent_runs() { pid_file_running "$run/agent.pid" >/dev/null; }

# The last lines of a log, for a person, when its program did not do what it should.
show_log() {
  [[ -s $1 ]] || return 0
  say "  the last lines of $1:"
  tail -n 12 "$1" | sed 's/^/    /' >&2
}

# One run at a time for one state directory.
take_lock() {
  exec 9>"$home/lock"
  flock --nonblock 9 || die "another run of this script works on $home" "Wait for it to end."
}

temporary=''
on_exit() {
  local status=$?
  [[ -z $temporary ]] || rm -rf "$temporary"
  if ((status != 0)) && [[ $verb == up && -e $secrets ]]; then
    say_warning "the fleet is initialised, but the admin's password and the root key's passphrase were not shown yet."
    say "  They wait in $secrets (0600). The next run that succeeds shows and deletes them."
  fi
}

# ---- up -------------------------------------------------------------------------------------------------------------------

up() {
  say_steps 9
  say_step "checking this machine"
  check_place
  choose_ports
  check_ports

  say_step "looking for the tools: C compiler, Rust"
  compiler_ensure
  toolchain_ensure "$top"

  say_step "looking for a Docker Engine"
  docker_ensure "$log/dockerd.log" "$run/dockerd.pid"

  if [[ -x $bin/serverflow-agent ]]; then
    say_step "building release binaries (only what has changed)"
  else
    say_step "building release binaries (about 8 minutes on two cores the first time)"
  fi
  build
  install_programs

  say_step "building the sample app's image (nothing is pulled)"
  build_image

  say_step "initialising the control plane"
  initialise

  say_step "starting the control plane"
  start_control_plane
  write_env
  use_env

  say_step "enrolling this machine as host '$host_name' and starting its agent"
  enroll
  start_agent

  say_step "deploying the sample app with a signed command"
  deploy
  summary
}

check_place() {
  [[ $(uname -s) == Linux ]] || die "this needs Linux" "On another system, use a virtual machine with Debian 12 or Ubuntu 24.04."
  if [[ -d $home && ! -e $marker && -n $(ls -A "$home") ]]; then
    die "$home exists and was not made by this script" "Choose another directory with SERVERFLOW_HOME."
  fi
  mkdir -p "$home" "$bin" "$log" "$run"
  chmod 0700 "$home"
  : >>"$marker"
  take_lock
  if ((EUID != 0)) && ! command -v sudo >/dev/null && ! docker_answers; then
    die "this needs root, sudo, or a Docker Engine that this user may use" "Run it as root, or install sudo."
  fi
}

# The ports of the first run hold. The agents' port is part of the address in the fleet's signed metadata, so another one
# would be another fleet; the web port may change while the control plane is down.
choose_ports() {
  local old
  old=$(setting agent_port)
  if [[ -n $old && -n $agent_port && $old != "$agent_port" && -e $data ]]; then
    die "this fleet was set up with --agent-port $old, not $agent_port" \
      "Its address is signed into the fleet's metadata. Run without --agent-port, or start over: $0 down --purge"
  fi
  agent_port=${agent_port:-${old:-7443}}
  old=$(setting http_port)
  if [[ -n $old && -n $http_port && $old != "$http_port" ]] && control_plane_runs; then
    die "the control plane already runs on port $old, not $http_port" "To change it, stop it first: $0 down"
  fi
  http_port=${http_port:-${old:-8080}}
  app_port=$(sed -n 's/.*"127\.0\.0\.1:\([0-9]*\):[0-9]*".*/\1/p' "$compose_file" | head -n 1)
  [[ $agent_port != "$http_port" ]] || die "--agent-port and --http-port are the same: $agent_port"
  [[ $agent_port != "$app_port" && $http_port != "$app_port" ]] ||
    die "port $app_port is the sample app's" "Choose another one for --agent-port and --http-port."
}

# Before anything is started: nobody else may be on our ports.
check_ports() {
  if ! control_plane_runs; then
    port_free "$agent_port" "the agents' listener" "Free it, or choose another: --agent-port PORT"
    port_free "$http_port" "the web page and REST API" "Free it, or choose another: --http-port PORT"
  fi
  if [[ $(setting app) != deployed ]]; then
    port_free "$app_port" "the sample app" "Free it, or change the port in deploy/sample/compose.yaml."
  fi
  setting_set agent_port "$agent_port"
  setting_set http_port "$http_port"
}

port_free() {
  if port_answers "$1"; then
    local holder
    holder=$(port_holder "$1")
    die "port $1, wanted for $2, is taken${holder:+ $holder}" "$3"
  fi
}

# The agent is built by itself, so that it has only the features it asks for.
build() {
  local options=(--release --locked --manifest-path "$top/Cargo.toml")
  quietly cargo-build cargo build "${options[@]}" --package serverflow-control-plane --package serverflow
  quietly cargo-build cargo build "${options[@]}" --package serverflow-agent
}

# quietly NAME COMMAND…: on a terminal its own progress is seen; elsewhere it goes to a log, shown if it fails.
quietly() {
  local name=$1
  shift
  if [[ -t 2 ]]; then
    "$@" >&2
  elif ! "$@" >"$log/$name.log" 2>&1; then
    show_log "$log/$name.log"
    die "failed: $*" "The whole log: $log/$name.log"
  fi
}

# Puts the new binaries in place. A program that changed is stopped, and started again by its own step: control plane first.
install_programs() {
  local built=${CARGO_TARGET_DIR:-$top/target}/release program
  for program in "${programs[@]}"; do
    if cmp -s "$built/$program" "$bin/$program"; then
      continue
    fi
    install -m 0755 "$built/$program" "$bin/.$program.new"
    mv "$bin/.$program.new" "$bin/$program"
    case $program in
      serverflow-control-plane) restart_for_new control-plane ;;
      serverflow-agent) restart_for_new agent ;;
    esac
  done
}

restart_for_new() {
  if pid_file_running "$run/$1.pid" >/dev/null; then
    say_detail "the $1 is new; it is restarted"
    pid_file_stop "$run/$1.pid" "the $1"
  fi
}

# The image script calls `docker`. When only root may, it finds a `docker` that goes through sudo.
build_image() {
  if ((${#docker_run[@]} > 0)); then
    mkdir -p "$temporary/path"
    printf '#!/bin/sh\nexec sudo -- %s "$@"\n' "$(command -v docker)" >"$temporary/path/docker"
    chmod 0755 "$temporary/path/docker"
    PATH=$temporary/path:$PATH quietly sample-image "$top/deploy/sample/build-image.sh"
  else
    quietly sample-image "$top/deploy/sample/build-image.sh"
  fi
  setting_set image built
}

initialise() {
  if [[ $(setting initialised) == yes ]]; then
    say_detail "already done: fleet $(setting fleet_id)"
    return
  fi
  # The document holds secrets: it goes to a file that is 0600 before anything is in it, never to a log. If the run was cut
  # just after `init`, the document of that time is there and goes on from here.
  if [[ ! -e $data ]]; then
    install -m 0600 /dev/null "$secrets"
    "$bin/serverflow-control-plane" init --data-dir "$data" --agent-address "127.0.0.1:$agent_port" --admin admin --json >"$secrets" ||
      { rm -f "$secrets"; die "the control plane could not be initialised" "Its message stands above."; }
  elif [[ ! -s $secrets || -z $(json_field root_passphrase <"$secrets") ]]; then
    die "an earlier initialisation was interrupted, and the root key's passphrase is lost with it" \
      "Nothing was enrolled yet. Start over: $0 down --purge"
  fi
  local name
  for name in fleet_id root_key root_public token_file; do
    setting_set "$name" "$(json_field "$name" <"$secrets")"
  done
  setting_set initialised yes
}

health_answers() { curl --silent --fail --output /dev/null --max-time 2 "http://127.0.0.1:$http_port/health"; }

start_control_plane() {
  # What it serves to new machines is the agent that was built here.
  mkdir -p "$home/agents/$(uname -m)"
  ln -sfn "$bin/serverflow-agent" "$home/agents/$(uname -m)/serverflow-agent"
  if control_plane_runs; then
    say_detail "already running (pid $(pid_file_running "$run/control-plane.pid"))"
  else
    start_detached "$run/control-plane.pid" "$log/control-plane.log" \
      "$bin/serverflow-control-plane" serve --data-dir "$data" \
      --agent-listen "127.0.0.1:$agent_port" --http-listen "127.0.0.1:$http_port" --agent-dir "$home/agents"
  fi
  local deadline=$((SECONDS + 60))
  until health_answers; do
    if ! control_plane_runs || ((SECONDS >= deadline)); then
      show_log "$log/control-plane.log"
      die "the control plane does not answer on http://127.0.0.1:$http_port/health" "Its log: $log/control-plane.log"
    fi
    sleep 0.2
  done
}

# For people, and for this script, to source: where the control plane is, and who they are there. The token stays in its own file.
write_env() {
  {
    echo "# Made by deploy/quickstart.sh. Use: . $(quoted "$env_file")"
    echo "export SERVERFLOW_URL=$(quoted "http://127.0.0.1:$http_port")"
    echo "SERVERFLOW_TOKEN=\$(cat $(quoted "$(setting token_file)")) && export SERVERFLOW_TOKEN"
    echo "export SERVERFLOW_ROOT=$(quoted "$(setting root_public)")"
    echo "case :\$PATH: in *:$(quoted "$bin"):*) ;; *) export PATH=$(quoted "$bin"):\"\$PATH\" ;; esac"
  } >"$env_file.new"
  mv "$env_file.new" "$env_file"
}

use_env() {
  # shellcheck source=/dev/null
  source "$env_file"
}

# Programs that use the Docker Engine run as who may use it.
as_docker_user() { ${docker_run[@]+"${docker_run[@]}"} "$@"; }

host_status() { serverflow host show "$host_name" --json 2>/dev/null | json_field status; }

enroll() {
  local status
  status=$(host_status || true)
  if [[ $(setting enrolled) == yes && -n $status && $status != revoked ]]; then
    say_detail "already enrolled"
    return
  fi
  if as_docker_user test -e "$agent_state"; then
    # Enrolled half, or revoked since. A token works once and a host id is never used again: begin anew.
    say_detail "an earlier enrolment did not end or was revoked; enrolling anew"
    pid_file_stop "$run/agent.pid" "the agent"
    [[ -z $status || $status == revoked ]] || serverflow host revoke "$host_name" --yes >&2
    as_docker_user rm -rf "$agent_state"
  fi
  serverflow host enroll "$host_name" --role app --ttl 15m --token-only --json | json_field token >"$temporary/token"
  [[ -s $temporary/token ]] || die "the control plane gave no join token" "Its log: $log/control-plane.log"
  as_docker_user "$bin/serverflow-agent" enroll --token-file "$temporary/token" --state-dir "$agent_state" >&2
  rm -f "$temporary/token"
  setting_set enrolled yes
}

start_agent() {
  if agent_runs; then
    say_detail "already running (pid $(pid_file_running "$run/agent.pid"))"
  else
    local rights=()
    ((${#docker_run[@]} == 0)) || rights=(--as-root)
    start_detached ${rights[@]+"${rights[@]}"} "$run/agent.pid" "$log/agent.log" \
      "$bin/serverflow-agent" run --state-dir "$agent_state"
  fi
  local deadline=$((SECONDS + 60)) status
  until status=$(host_status || true) && [[ $status == connected ]]; do
    if ! agent_runs || ((SECONDS >= deadline)); then
      show_log "$log/agent.log"
      die "the agent did not connect (host '$host_name' is ${status:-unknown})" "Its log: $log/agent.log" \
        "Ask it what is wrong: $bin/serverflow-agent doctor --state-dir $agent_state"
    fi
    sleep 0.2
  done
}

deploy() {
  serverflow app deploy -f "$compose_file" --name "$app_name" --host "$host_name" >&2 ||
    die "the sample app was not deployed" "The lines above say why. The agent's log: $log/agent.log"
  setting_set app deployed
}

summary() {
  local here=$env_file
  [[ $env_file != "$PWD"/* ]] || here=${env_file#"$PWD"/}
  printf -v here %q "$here"
  printf '\n%sServerFlow runs.%s\n\n' "$say_bold" "$say_off"
  printf '  %-16s %s\n' "Control plane" "http://127.0.0.1:$http_port"
  if [[ -e $secrets ]]; then
    printf '  %-16s %s\n' "Admin" "$(json_field name <"$secrets")" "Password" "$(json_field password <"$secrets")"
    printf '  %-16s %s\n' "Root key" "$(setting root_key)" "Its passphrase" "$(json_field root_passphrase <"$secrets")"
    printf '\n  Password and passphrase are shown this once; write them down now. The root key decides who may order anything\n'
    printf '  in this fleet, and daily work does not need it: move the file off this machine, and keep its passphrase elsewhere.\n'
  else
    printf '  %-16s %s\n' "Admin" "admin (the password was shown once, by the first run)"
    printf '  %-16s %s\n' "Session token" "$(setting token_file) (read by $here)"
    if [[ -e $(setting root_key) ]]; then
      printf '  %-16s %s\n' "Root key" "$(setting root_key)" \
        "" "Still on this machine: move it away. Its passphrase was shown once, by the first run."
    else
      printf '  %-16s %s\n' "Root key" "moved away from this machine, as it should be"
    fi
  fi
  printf '\n  %-16s %s\n' "Sample app" "http://127.0.0.1:$app_port/"
  printf '\nTry next, after  . %s\n\n' "$here"
  printf '  serverflow host list\n'
  printf "  GREETING='Hello again' serverflow app deploy -f %s --name %s --host %s\n" \
    "${compose_file#"$PWD"/}" "$app_name" "$host_name"
  printf '  serverflow audit verify\n'
  printf '\nA second machine, and HTTPS for people: docs/INSTALL.md\n\n'
  rm -f "$secrets"
}

# ---- down -----------------------------------------------------------------------------------------------------------------

down() {
  if [[ ! -e $marker ]]; then
    say "Nothing to do: there is no $home."
    return
  fi
  take_lock
  http_port=$(setting http_port)
  if [[ $purge == yes ]]; then
    say_steps 4
    say_step "removing the sample app"
    remove_app
  else
    say_steps 2
  fi
  say_step "stopping agent and control plane"
  pid_file_stop "$run/agent.pid" "the agent"
  pid_file_stop "$run/control-plane.pid" "the control plane"
  [[ $purge == no ]] || remove_image
  say_step "stopping the Docker Engine, if this script started it"
  if pid_file_running "$run/dockerd.pid" >/dev/null; then
    pid_file_stop "$run/dockerd.pid" dockerd 60
  else
    rm -f "$run/dockerd.pid"
    say_detail "it did not; the engine is left alone"
  fi
  if [[ $purge == yes ]]; then
    say_step "removing $home with all keys and data"
    # The agent's directory is root's when only root may use the engine.
    rm -rf "$home" 2>/dev/null || as_root rm -rf "$home"
    say "Everything is removed. Build results stay in ${CARGO_TARGET_DIR:-$top/target}."
  else
    say "Stopped. Data stays in $home; start again with $0."
    [[ $(setting app) != deployed ]] ||
      say "The sample app is Docker's to run, and still runs if the engine does. To remove it as well: $0 down --purge"
  fi
}

# Through a signed command when the fleet is up; otherwise by the labels that every container of this fleet bears.
remove_app() {
  if ! docker_answers; then
    say_warning "no Docker Engine answers, so containers of the sample app, if there are any, stay"
    return
  fi
  if [[ $(setting app) == deployed ]] && control_plane_runs && agent_runs && [[ -r $env_file ]]; then
    use_env
    if serverflow app remove "$app_name" >&2; then
      setting_set app removed
      return
    fi
    say_warning "the command failed; removing the containers by their labels"
  fi
  remove_by_label
}

remove_by_label() {
  local fleet kind id
  fleet=$(setting fleet_id)
  [[ -n $fleet ]] || return 0
  while read -r id; do docker_ rm --force --volumes "$id" >/dev/null; done < <(docker_ ps --all --quiet --filter "label=$fleet_label=$fleet")
  for kind in network volume; do
    while read -r id; do docker_ "$kind" rm "$id" >/dev/null; done < <(docker_ "$kind" ls --quiet --filter "label=$fleet_label=$fleet")
  done
}

remove_image() {
  [[ $(setting image) == built ]] && docker_answers || return 0
  if docker_ image inspect "$app_image" >/dev/null 2>&1; then
    docker_ image rm "$app_image" >/dev/null || say_warning "the image $app_image is in use elsewhere and stays"
  fi
}

parse_arguments "$@"
trap on_exit EXIT
temporary=$(mktemp -d)
if [[ $verb == up ]]; then up; else down; fi
