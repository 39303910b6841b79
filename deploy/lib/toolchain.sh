# shellcheck shell=bash
# A C compiler and a Rust toolchain that is new enough. Sourced after system.sh.

# The Rust version that the workspace asks for, from the top Cargo.toml.
rust_version_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$1/Cargo.toml"; }

# The version of the rustc that would be used, or nothing.
rust_version_found() { rustc --version 2>/dev/null | sed -n 's/^rustc \([0-9.]*\).*/\1/p'; }

# version_at_least HAVE WANT
version_at_least() { [[ -n $1 && $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1) == "$2" ]]; }

# C compiler: some crates (SQLite, aws-lc) compile C.
compiler_ensure() {
  local missing=()
  command -v cc >/dev/null || missing+=(build-essential)
  command -v curl >/dev/null || missing+=(ca-certificates curl)
  command -v git >/dev/null || missing+=(git)
  ((${#missing[@]} == 0)) || apt_install "${missing[@]}"
}

# toolchain_ensure TOP: leaves a cargo in PATH that can build the workspace at TOP.
toolchain_ensure() {
  local wanted have
  wanted=$(rust_version_wanted "$1")
  # rustup's folder is in PATH only after a new login.
  if ! command -v cargo >/dev/null && [[ -x ${CARGO_HOME:-$HOME/.cargo}/bin/cargo ]]; then
    PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  fi
  have=$(rust_version_found)
  if version_at_least "$have" "$wanted"; then
    return 0
  fi
  if ! command -v rustup >/dev/null; then
    rustup_install "$wanted"
  fi
  say_detail "installing Rust (found ${have:-none}, $wanted or later is needed)"
  rustup toolchain install stable --profile minimal --component clippy,rustfmt --no-self-update >&2
  export RUSTUP_TOOLCHAIN=stable
  have=$(rust_version_found)
  version_at_least "$have" "$wanted" ||
    die "Rust ${have:-(none)} is in use and $wanted or later is needed" "Look at 'rustup show' and at PATH."
}

# rustup from the distribution where it has it (Ubuntu 24.04), otherwise from its own site.
rustup_install() { # VERSION: for the message
  if command -v apt-cache >/dev/null && apt-cache show rustup >/dev/null 2>&1; then
    apt_install rustup
    return 0
  fi
  local script
  script=$(mktemp)
  say_detail "fetching rustup from https://sh.rustup.rs"
  if ! curl --proto '=https' --tlsv1.2 --fail --silent --show-error --location --output "$script" https://sh.rustup.rs; then
    rm -f "$script"
    die "could not fetch rustup from https://sh.rustup.rs" \
      "Install Rust $1 or later yourself (https://rustup.rs), then run again."
  fi
  sh "$script" -y --no-modify-path --profile minimal --component clippy --component rustfmt >&2
  rm -f "$script"
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
}
