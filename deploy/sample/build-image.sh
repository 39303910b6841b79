#!/usr/bin/env bash
# Builds the sample app as one static program and puts it into the local image serverflow-sample:1.
# Nothing is pulled. An import gives the same file a new image id each time, so the image is made only
# when it is absent or the program inside it is another one.
set -euo pipefail

image=serverflow-sample:1
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
target=$(uname -m)-unknown-linux-gnu
out=${CARGO_TARGET_DIR:-$root/target}/sample
mkdir -p "$out"

# Tests may call this at the same time.
exec 9>"$out/build-image.lock"
flock 9

# The flags hold for --target only: build scripts and macros stay dynamic. An own directory keeps
# them from throwing away what the rest of the workspace has built.
RUSTFLAGS='-C target-feature=+crt-static' \
  cargo build --quiet --manifest-path "$root/Cargo.toml" --package serverflow-sample --release \
  --target "$target" --target-dir "$out"

program=$out/$target/release/serverflow-sample
sum=$(sha256sum "$program" | cut -d' ' -f1)
label=io.serverflow.sample.program
if [ "$(docker image inspect --format "{{index .Config.Labels \"$label\"}}" "$image" 2>/dev/null)" = "$sum" ]; then
  echo "$image is up to date"
  exit 0
fi

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
install -m 0755 "$program" "$stage/sample"
tar --create --directory "$stage" --owner 0 --group 0 --numeric-owner sample |
  docker import \
    --change 'ENTRYPOINT ["/sample"]' \
    --change 'CMD ["serve"]' \
    --change 'EXPOSE 8080' \
    --change 'USER 65534:65534' \
    --change 'HEALTHCHECK --interval=2s --timeout=2s --start-period=1s --retries=3 CMD ["/sample", "check"]' \
    --change "LABEL $label=$sum" \
    - "$image" >/dev/null
echo "$image is built"
