#!/usr/bin/env bash
# Sets up what the tests need, and runs all of them.
#
#   ./tests/run.sh          everything
#   ./tests/run.sh --fast   without what needs a Docker Engine (the docker tests and the end-to-end tests)
#
# Works on Debian 12 and Ubuntu 24.04 as root or with sudo; installs what is missing. Steps go on after a failure, so that one
# run shows everything; the exit status is 0 only if all of them passed. CARGO_TARGET_DIR is honoured.
#
# One profile for everything: the end-to-end tests run against the dev binaries, whose cryptography is optimised all the same
# (see Cargo.toml). Release binaries would compile every dependency a second time, with link-time optimisation: the better
# part of ten minutes on two cores, for the same logic. `deploy/quickstart.sh` is what builds and runs the release binaries.
set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$top"
# shellcheck source=../deploy/lib/say.sh
source deploy/lib/say.sh
# shellcheck source=../deploy/lib/system.sh
source deploy/lib/system.sh
# shellcheck source=../deploy/lib/toolchain.sh
source deploy/lib/toolchain.sh
# shellcheck source=../deploy/lib/docker.sh
source deploy/lib/docker.sh

cargo_deny_version=0.20.2
cargo_nextest_version=0.9.143
cargo_fuzz_version=0.13.2
# For each fuzzer, here; a night is `cargo xtask fuzz --seconds 3600`.
fuzz_seconds=4

fast=no
case ${1-} in
  '') ;;
  --fast) fast=yes ;;
  -h | --help)
    sed -n '2,/^set /{s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
    exit 0
    ;;
  *) die "unknown argument: $1" "Usage: tests/run.sh [--fast]" ;;
esac

target=${CARGO_TARGET_DIR:-$top/target}
[[ $target == /* ]] || target=$top/$target
export CARGO_TARGET_DIR=$target
logs=$target/test-logs
binaries=$target/test-bin
mkdir -p "$logs" "$binaries"
rm -f "$logs"/*.log
export CARGO_TERM_PROGRESS_WHEN=never

failed=()
counted=()

# step NAME COMMAND…: runs it under a heading, with its time, and remembers a failure.
step() {
  local name=$1 began=$SECONDS status=0
  shift
  say_step "$name"
  "$@" || status=$?
  if ((status == 0)); then
    printf '      %sok%s, %d s\n' "$say_green" "$say_off" $((SECONDS - began)) >&2
  else
    printf '      %sFAILED%s (%d), %d s\n' "$say_red" "$say_off" "$status" $((SECONDS - began)) >&2
    failed+=("$name")
  fi
  return 0
}

# A step that the later ones stand on.
step_first() {
  local before=${#failed[@]}
  step "$@"
  if ((${#failed[@]} > before)); then
    say "      the later steps stand on this one and are left out"
    finish
  fi
}

# counted_run NAME COMMAND…: a test runner, whose closing lines are shown again at the end.
counted_run() {
  local log=$logs/$1.log
  counted+=("$1")
  shift
  "$@" 2>&1 | tee "$log" >&2
}

set_up() {
  compiler_ensure
  toolchain_ensure "$top"
  nextest_ensure
  deny_ensure
  if [[ $fast == no ]]; then
    # An engine that is started here keeps running, for the next run; its files lie outside of what a run clears.
    docker_ensure "$target/dockerd.log" "$target/dockerd.pid"
    if ((${#docker_run[@]} > 0)); then
      die "this user may not use the Docker Engine, and the tests need it" \
        "Run as root, or add the user to the group 'docker', or use --fast."
    fi
  fi
}

# The prebuilt nextest, when its site can be reached; without it `cargo test` does the same, one binary after the other.
nextest_ensure() {
  command -v cargo-nextest >/dev/null && return 0
  local bin=${CARGO_HOME:-$HOME/.cargo}/bin system
  case $(uname -m) in
    x86_64) system=linux ;;
    aarch64) system=linux-arm ;;
    *) system= ;;
  esac
  mkdir -p "$bin"
  if [[ -n $system ]] && curl --proto '=https' --tlsv1.2 --fail --silent --location --max-time 120 \
    "https://get.nexte.st/$cargo_nextest_version/$system" 2>/dev/null | tar -xz -C "$bin" 2>/dev/null; then
    say_detail "installed cargo-nextest $cargo_nextest_version"
  else
    say_detail "cargo-nextest cannot be had here; cargo test stands in"
  fi
}

deny_ensure() {
  command -v cargo-deny >/dev/null && return 0
  say_detail "installing cargo-deny $cargo_deny_version (about 3 minutes, once)"
  cargo install cargo-deny --locked --version "$cargo_deny_version" --target-dir "$target/tools" >"$logs/cargo-deny-install.log" 2>&1 ||
    { tail -n 20 "$logs/cargo-deny-install.log" >&2; return 1; }
}

formatting() { cargo fmt --all --check; }

tidy() { cargo xtask tidy; }

scripts() {
  local file status=0
  while IFS= read -r -d '' file; do
    bash -n "$file" || status=1
  done < <(git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run)
  if command -v shellcheck >/dev/null; then
    git ls-files -z --cached --others --exclude-standard -- '*.sh' .ci/run | xargs -0 shellcheck --external-sources || status=1
  else
    say_detail "shellcheck is not installed: syntax checked only"
  fi
  units || status=1
  return "$status"
}

# Units of systemd, as far as they can be judged where their programs are not installed.
units() {
  if ! command -v systemd-analyze >/dev/null; then
    say_detail "systemd-analyze is not installed: units not checked"
    return 0
  fi
  local stage file said status=0
  stage=$(mktemp -d)
  for file in deploy/units/*.service; do
    sed 's#^\(ExecStart=\)[^ ]*#\1/bin/true#' "$file" >"$stage/${file##*/}"
    said=$(systemd-analyze verify --man=no "$stage/${file##*/}" 2>&1) || status=1
    if [[ -n $said ]]; then
      printf '%s\n' "$said" >&2
      status=1
    fi
  done
  rm -rf "$stage"
  return "$status"
}

lints() { cargo clippy --locked --quiet --workspace --all-targets -- -D warnings; }

denials() {
  cargo deny --log-level error --config .deny.toml check bans licenses sources || return
  local log=$logs/advisories.log
  if cargo deny --config .deny.toml fetch db >"$log" 2>&1; then
    cargo deny --log-level error --config .deny.toml check --disable-fetch advisories
  else
    say_warning "advisories skipped: no network (the RustSec database cannot be fetched)"
  fi
}

# A program for the end-to-end tests, which start it thousands of times: without its line tables it is half the size. They
# name functions in a backtrace all the same.
program() { # FROM INTO
  install -m 0755 "$1" "$2" && strip --strip-debug "$2"/"${1##*/}"
}

# All test binaries and programs once, as the test runner will ask for them; then the agent by itself, so that what runs end to
# end has only the features that the agent asks for. The programs are copied away: a later step may link them anew.
build() {
  cargo build --locked --quiet --workspace --all-targets &&
    program "$target/debug/serverflow-control-plane" "$binaries" &&
    program "$target/debug/serverflow" "$binaries" &&
    cargo build --locked --quiet --package serverflow-agent &&
    program "$target/debug/serverflow-agent" "$binaries" &&
    build_crash_points
}

# The agent and the control plane once more, for the tests that end them at each of their doors. Only the rooms that have a
# door are compiled anew.
build_crash_points() {
  local crash=$binaries/crash-points
  mkdir -p "$crash" &&
    cargo build --locked --quiet --package serverflow-agent --features crash-points &&
    program "$target/debug/serverflow-agent" "$crash" &&
    cargo build --locked --quiet --package serverflow-control-plane --features crash-points &&
    program "$target/debug/serverflow-control-plane" "$crash"
}

sample_image() { deploy/sample/build-image.sh; }

workspace_tests() {
  if command -v cargo-nextest >/dev/null; then
    local filter='not package(serverflow-e2e)'
    [[ $fast == no ]] || filter+=' and not binary(/^docker/)'
    counted_run tests cargo nextest run --locked --workspace -E "$filter"
    return
  fi
  local only=()
  if [[ $fast == yes ]]; then
    # Every target but the integration tests named docker…: cargo test cannot say it the other way round.
    only=(--lib --bins)
    local file name
    for file in crates/*/tests/*.rs; do
      [[ -e $file ]] || continue
      name=$(basename "$file" .rs)
      [[ $name == docker* ]] || only+=(--test "$name")
    done
  fi
  counted_run tests cargo test --locked --no-fail-fast --workspace --exclude serverflow-e2e ${only[@]+"${only[@]}"}
}

end_to_end() {
  export SERVERFLOW_BIN_DIR=$binaries
  if command -v cargo-nextest >/dev/null; then
    # As a choice from the workspace, which is built: asked for alone, its dependencies would be built once more, with fewer features.
    counted_run end-to-end cargo nextest run --locked --workspace --test-threads 4 -E 'package(serverflow-e2e)'
  else
    counted_run end-to-end cargo test --locked --no-fail-fast --package serverflow-e2e -- --test-threads 1
  fi
}

# Many agents in one process, a control plane killed under them, every report durable: few of them, for the logic alone.
load() {
  local log=$logs/load.log
  "$target/debug/serverflow-load" --bin-dir "$binaries" --agents 60 --rounds 1 --singles 5 --idle-seconds 1 >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; return 1; }
}

# Each of these says by itself what it leaves out, and why.
upgrade() { tests/upgrade.sh "$binaries"; }
packages() { tests/packages.sh "$binaries"; }
container() { tests/container.sh "$binaries"; }

# Each fuzzer for a moment, where there is a nightly toolchain: what reads bytes before they are verified must not panic, nor
# read one thing in two ways.
fuzz() {
  local log=$logs/fuzz.log
  if ! cargo +nightly --version >/dev/null 2>&1; then
    say_warning "fuzzers skipped: there is no nightly toolchain (rustup toolchain install nightly)"
    return 0
  fi
  if ! command -v cargo-fuzz >/dev/null; then
    say_detail "installing cargo-fuzz $cargo_fuzz_version (about a minute, once)"
    cargo install cargo-fuzz --locked --version "$cargo_fuzz_version" --target-dir "$target/tools" >"$log" 2>&1 ||
      { tail -n 20 "$log" >&2; return 1; }
  fi
  cargo xtask fuzz --seconds "$fuzz_seconds" >"$log" 2>&1 || { tail -n 40 "$log" >&2; return 1; }
}

doc_tests() { counted_run doc-tests cargo test --locked --quiet --workspace --doc; }

documentation() { RUSTDOCFLAGS='-D warnings' cargo doc --locked --quiet --workspace --no-deps; }

# The closing lines of one runner, and "PASSED FAILED SKIPPED" summed over them.
closing_lines() { grep -E '^ *Summary \[|^test result:' "$1" || true; }
sums() {
  closing_lines "$1" | awk '
    { line = $0; gsub(/\([0-9]+ [a-z]+\)/, "", line)
      n = split(line, word, /[ ;,]+/)
      for (i = 2; i <= n; i++) {
        if (word[i] == "passed") p += word[i-1]
        if (word[i] == "failed" || (word[i] == "timed" && word[i+1] == "out")) f += word[i-1]
        if (word[i] == "skipped" || word[i] == "ignored") s += word[i-1]
      } }
    END { print p + 0, f + 0, s + 0 }'
}

finish() {
  local name passed=0 lost=0 skipped=0 p f s
  printf '\n%sresults%s\n' "$say_bold" "$say_off"
  for name in ${counted[@]+"${counted[@]}"}; do
    printf '%s:\n' "$name"
    closing_lines "$logs/$name.log" | sed 's/^ */  /' | awk '!/ 0 passed; 0 failed; 0 ignored/'
    read -r p f s < <(sums "$logs/$name.log")
    passed=$((passed + p)) lost=$((lost + f)) skipped=$((skipped + s))
  done
  printf 'total: %d passed, %d failed, %d skipped, in %d min %d s\n' \
    "$passed" "$lost" "$skipped" $((SECONDS / 60)) $((SECONDS % 60))
  ! pid_file_running "$target/dockerd.pid" >/dev/null ||
    echo "dockerd, started by these tests, still runs: kill $(pid_file_running "$target/dockerd.pid")"
  if ((${#failed[@]} > 0)); then
    printf 'FAILED steps:'
    printf ' %s;' "${failed[@]}"
    printf '\n'
    exit 1
  fi
  echo "every step passed"
  exit 0
}

if [[ $fast == yes ]]; then say_steps 11; else say_steps 17; fi
say_step "setting up"
set_up
step "formatting" formatting
step "scripts" scripts
step "tidy: the rules of the workspace" tidy
step "clippy" lints
step "cargo-deny: licences, sources, duplicates, advisories" denials
step_first "building tests and programs" build
[[ $fast == yes ]] || step_first "sample image" sample_image
step "tests" workspace_tests
[[ $fast == yes ]] || step "end-to-end tests" end_to_end
[[ $fast == yes ]] || step "load: 60 agents" load
if [[ $fast == no ]]; then
  step "upgrade: from 0.1.0, with its own programs" upgrade
  step "packages: installed, upgraded, removed, purged" packages
  step "container: the control plane's image" container
fi
step "fuzzers: $fuzz_seconds s each" fuzz
step "documentation tests" doc_tests
step "documentation" documentation
finish
