sh <<'SERVERFLOW'
# {{purpose}}. As root, with curl or wget.
set -eu
fail() { echo "$*" >&2; exit 1; }
case $(uname -m) in
{{sums}}  *) fail "no agent is served for $(uname -m); there are: {{architectures}}" ;;
esac
[ "$(id -u)" = 0 ] || fail "this needs root: 'sudo -i' first, then the same lines"
mkdir -p /usr/local/bin
dir=$(mktemp -d /usr/local/bin/.serverflow-agent.XXXXXX)
trap 'rm -rf "$dir"' EXIT; trap 'exit 1' HUP INT TERM
url={{url}}/agents/$sum
{{ca}}fetch() {
  if command -v curl >/dev/null; then curl -fsS --retry 3 {{curl}}-o "$dir/agent" "$url"
  elif command -v wget >/dev/null; then wget -q {{wget}}-O "$dir/agent" "$url"
  else fail "this needs curl or wget: 'apt-get install curl', then the same lines"; fi
}
fetch || fail "the agent did not come from $url. Old lines? Print new ones: serverflow host {{again}}"
echo "$sum  $dir/agent" | sha256sum -c >/dev/null || fail "what came is not the agent of these lines: nothing was installed"
chmod 700 "$dir/agent"
"$dir/agent" --version >/dev/null || fail "the agent needs glibc 2.36 or newer: Debian 12, Ubuntu 24.04"
"$dir/agent" install {{install}}
SERVERFLOW
