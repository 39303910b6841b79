# shellcheck shell=bash
# The machine: rights, packages, waiting, processes. Sourced after say.sh.

# Runs a command as root: directly, or through sudo.
as_root() {
  if ((EUID == 0)); then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo -- "$@"
  else
    die "this needs root: $*" "Run the script as root, or install sudo."
  fi
}

# wait_until SECONDS COMMAND…: succeeds as soon as the command does, fails when the time is over.
wait_until() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.2
  done
}

# apt_install PACKAGE…: Debian and Ubuntu; elsewhere it says what to install by hand.
apt_install() {
  command -v apt-get >/dev/null ||
    die "these packages are missing and there is no apt-get here: $*" "Install what corresponds to them, then run again."
  say_detail "installing $*"
  local log
  log=$(mktemp)
  if ! { as_root apt-get update -q && as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"; } >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    die "could not install $*" "The lines above are apt's own. Mend that, then run again."
  fi
  rm -f "$log"
}

# A service manager that would start and keep services here.
has_systemd() { [[ -d /run/systemd/system ]] && command -v systemctl >/dev/null; }

# When a process started, in clock ticks since boot. With its number and the boot, this tells it from a later process
# that was given the same number.
process_start() {
  local line
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  line=${line##*) } # the name before may hold blanks and brackets
  local -a field
  read -r -a field <<<"$line"
  printf '%s\n' "${field[19]}"
}

# Is there a process of that number that has not ended? (A zombie has; only its parent has not looked.)
process_lives() { [[ -d /proc/$1 ]] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2>/dev/null; }

boot_id() { cat /proc/sys/kernel/random/boot_id; }

# A pid file holds "PID START BOOT".
pid_file_write() {
  local start
  start=$(process_start "$2") || return 1
  printf '%s %s %s\n' "$2" "$start" "$(boot_id)" >"$1"
}

# Prints the pid if the process of that file still runs; a stale file, or one about another process, fails.
pid_file_running() {
  local pid start boot
  [[ -r $1 ]] && read -r pid start boot <"$1" || return 1
  [[ $boot == "$(boot_id)" && $pid =~ ^[0-9]+$ ]] || return 1
  [[ $(process_start "$pid" || true) == "$start" && -n $start ]] || return 1
  process_lives "$pid" || return 1
  printf '%s\n' "$pid"
}

pid_file_ended() { ! pid_file_running "$1" >/dev/null; }

# start_detached [--as-root] PIDFILE LOG COMMAND…: runs it in a session of its own, output to LOG, and records it. The inner
# shell writes its number and then becomes the command, so the number is right under sudo as well. Descriptor 9 is the lock
# of our scripts: what outlives them must not hold it.
start_detached() {
  local run='' pid_file log
  [[ $1 != --as-root ]] || { run=as_root && shift; }
  pid_file=$1 log=$2
  shift 2
  rm -f "$pid_file"
  : >"$pid_file.new"
  # shellcheck disable=SC2016 # expanded by the inner shell
  $run setsid --fork sh -c 'echo $$ >"$1"; log=$2; shift 2; exec "$@" >>"$log" 2>&1 </dev/null' \
    sh "$pid_file.new" "$log" "$@" 9>&-
  wait_until 10 test -s "$pid_file.new" || die "could not be started: $1" "Its log: $log"
  # It may have ended already: then there is nothing to record, and the caller finds it ended.
  pid_file_write "$pid_file" "$(<"$pid_file.new")" 2>/dev/null || rm -f "$pid_file"
  rm -f "$pid_file.new"
}

# pid_file_stop FILE NAME [SECONDS]: asks the process to end, and ends it after that time. Nothing is signalled unless the
# process is the one that was recorded.
pid_file_stop() {
  local pid run=
  if pid=$(pid_file_running "$1"); then
    [[ -O /proc/$pid ]] || run=as_root
    $run kill -TERM "$pid" 2>/dev/null || true
    if ! wait_until "${3:-30}" pid_file_ended "$1"; then
      say_warning "$2 (pid $pid) did not end in ${3:-30} s and is killed"
      $run kill -KILL "$pid" 2>/dev/null || true
      wait_until 10 pid_file_ended "$1" || die "$2 (pid $pid) does not end"
    fi
  fi
  rm -f "$1"
}

# Does something accept connections there?
port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# One line about who listens on a port, as far as this user may see.
port_holder() {
  command -v ss >/dev/null || return 0
  ss -Hltnp "sport = :$1" 2>/dev/null | sed -n 's/.*users:(("\([^"]*\)",pid=\([0-9]*\).*/by \1 (pid \2)/p' | head -n 1
}
