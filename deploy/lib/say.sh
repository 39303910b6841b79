# shellcheck shell=bash
# What the scripts print. Sourced, never run.
#
# Progress goes to standard error and results to standard output, so that a result can be piped. Colours appear on a
# terminal only, and not when NO_COLOR is set.

# shellcheck disable=SC2034 # read by the scripts that source this
if [[ -t 2 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
  say_bold=$'\e[1m' say_dim=$'\e[2m' say_red=$'\e[31m' say_green=$'\e[32m' say_yellow=$'\e[33m' say_off=$'\e[0m'
else
  say_bold='' say_dim='' say_red='' say_green='' say_yellow='' say_off=''
fi

say() { printf '%s\n' "$*" >&2; }
say_detail() { printf '      %s%s%s\n' "$say_dim" "$*" "$say_off" >&2; }
say_warning() { printf '%swarning:%s %s\n' "$say_yellow" "$say_off" "$*" >&2; }

# Ends the script: what happened, and in further arguments what to do next.
die() {
  printf '%serror:%s %s\n' "$say_red" "$say_off" "$1" >&2
  shift
  (($# == 0)) || printf '       %s\n' "$@" >&2
  exit 1
}

# Steps are numbered: say_steps 9, then say_step "building" prints "[1/9] building".
say_step_now=0 say_step_count=0
say_steps() { say_step_now=0 say_step_count=$1; }
say_step() {
  say_step_now=$((say_step_now + 1))
  printf '%s[%d/%d]%s %s\n' "$say_bold" "$say_step_now" "$say_step_count" "$say_off" "$*" >&2
}
