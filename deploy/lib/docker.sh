# shellcheck shell=bash
# A Docker Engine that answers. Sourced after system.sh.
#
# docker_run=() or (as_root): how this user reaches the engine, set by docker_ensure.

# shellcheck disable=SC2034 # read by the scripts that source this
docker_run=()

docker_answers() {
  command -v docker >/dev/null || return 1
  if docker info >/dev/null 2>&1; then
    docker_run=()
  elif ((EUID != 0)) && command -v sudo >/dev/null && sudo -- docker info >/dev/null 2>&1; then
    # shellcheck disable=SC2034
    docker_run=(as_root)
  else
    return 1
  fi
}

# docker_ensure LOG PIDFILE: returns when an engine answers. What answers already is used as it is. Otherwise the engine is
# installed if need be, and started: by the service manager, or where none is, by us; then its pid is recorded in PIDFILE,
# and only then is it ours to stop.
docker_ensure() {
  local log=$1 pid_file=$2
  docker_answers && return 0
  if ! command -v dockerd >/dev/null || ! command -v docker >/dev/null; then
    apt_install docker.io iptables ca-certificates
    # The package starts it where a service manager is.
    wait_until 5 docker_answers && return 0
  fi
  if has_systemd; then
    say_detail "starting the Docker service"
    as_root systemctl start docker || die "systemd could not start Docker" "Look at 'journalctl -u docker'."
    wait_until 60 docker_answers || die "Docker was started and does not answer" "Look at 'journalctl -u docker'."
    return 0
  fi
  docker_start "$log" "$pid_file"
}

# Starts dockerd ourselves, without a service manager.
docker_start() {
  local log=$1 pid_file=$2
  docker_forget_stale_pid
  say_detail "starting dockerd (no service manager here); its log: $log"
  start_detached --as-root "$pid_file" "$log" dockerd
  local deadline=$((SECONDS + 90))
  until docker_answers; do
    if pid_file_ended "$pid_file" || ((SECONDS >= deadline)); then
      as_root tail -n 8 "$log" >&2 || true
      die "dockerd does not run" "The lines above are the last of its log, $log."
    fi
    sleep 0.3
  done
}

# After a hard stop /var/run/docker.pid may name a process that is gone, or another one by now; dockerd then refuses to
# start. It is removed only when no living dockerd has that number.
docker_forget_stale_pid() {
  local file pid
  for file in /var/run/docker.pid /var/run/docker/containerd/containerd.pid; do
    [[ -e $file ]] || continue
    pid=$(as_root cat "$file" 2>/dev/null || true)
    if [[ $pid =~ ^[0-9]+$ && $(cat "/proc/$pid/comm" 2>/dev/null) =~ ^(dockerd|containerd)$ ]] && process_lives "$pid"; then
      continue
    fi
    say_detail "removing the stale $file"
    as_root rm -f "$file"
  done
}
