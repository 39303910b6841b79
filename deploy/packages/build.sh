#!/usr/bin/env bash
# Makes Debian packages of the three programs from built ones.
#
#   deploy/packages/build.sh [--version V] BIN_DIR OUT_DIR
#
# SERVERFLOW_DEB_COMPRESSION chooses dpkg-deb's options for it: "-Zgzip -z1" saves the time of packages that are only tested.
# BIN_DIR holds serverflow, serverflow-agent and serverflow-control-plane (`cargo build --release`, the agent by itself). Needs
# dpkg-dev and binutils. The same programs make the same packages: times are those of the last commit, or SOURCE_DATE_EPOCH.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
top=$(cd "$here/../.." && pwd)
version=$(sed -n '/^\[workspace.package\]/,/^\[/{s/^version = "\(.*\)"/\1/p}' "$top/Cargo.toml")
if [[ ${1-} == --version ]]; then
  version=${2:?a version}
  shift 2
fi
bin=$(cd "${1:?the directory with the programs}" && pwd)
mkdir -p "${2:?where the packages go}"
out=$(cd "$2" && pwd)
architecture=$(dpkg --print-architecture)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$top" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
compression=${SERVERFLOW_DEB_COMPRESSION:--Zxz}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# put MODE FILE PLACE: one file of the package being made.
put() { install -D -m "$1" "$2" "$root/$3"; }

# program NAME SECTION: the program, its man pages and its completions.
program() {
  local name=$1 section=$2 page
  put 0755 "$bin/$name" "usr/bin/$name"
  strip --strip-unneeded --remove-section=.comment --remove-section=.note "$root/usr/bin/$name"
  "$bin/$name" generate man --out "$work/man-$name" >/dev/null
  for page in "$work/man-$name"/*."$section"; do
    put 0644 "$page" "usr/share/man/man$section/${page##*/}"
    gzip -9n "$root/usr/share/man/man$section/${page##*/}"
  done
  "$bin/$name" generate completions --out "$work/completions-$name" >/dev/null
  put 0644 "$work/completions-$name/$name.bash" "usr/share/bash-completion/completions/$name"
  put 0644 "$work/completions-$name/_$name" "usr/share/zsh/vendor-completions/_$name"
  put 0644 "$work/completions-$name/$name.fish" "usr/share/fish/vendor_completions.d/$name.fish"
}

# What the program is linked to, as packages with their least versions.
libraries() {
  mkdir -p "$work/shlibs/debian"
  printf 'Source: serverflow\n\nPackage: serverflow\nArchitecture: any\n' >"$work/shlibs/debian/control"
  (cd "$work/shlibs" && dpkg-shlibdeps -O "$root/usr/bin/$1" 2>/dev/null) | sed -n 's/^shlibs:Depends=//p'
}

# package NAME "MORE DEPENDENCIES" SHORT LONG: what `program` and `put` laid out, as a .deb.
package() {
  local name=$1 more=$2 short=$3 long=$4 depends script
  depends=$(libraries "$name")${more:+, $more}
  put 0644 "$here/copyright" "usr/share/doc/$name/copyright"
  sed "s/@PACKAGE@/serverflow/; s/@VERSION@/$version/" "$here/changelog" >"$work/changelog"
  put 0644 "$work/changelog" "usr/share/doc/$name/changelog"
  gzip -9n "$root/usr/share/doc/$name/changelog"
  [[ ! -e $here/$name.readme ]] || put 0644 "$here/$name.readme" "usr/share/doc/$name/README.Debian"
  [[ ! -e $here/$name.lintian-overrides ]] || put 0644 "$here/$name.lintian-overrides" "usr/share/lintian/overrides/$name"
  mkdir -p "$root/DEBIAN"
  for script in preinst postinst prerm postrm; do
    [[ ! -e $here/$name.$script ]] || install -m 0755 "$here/$name.$script" "$root/DEBIAN/$script"
  done
  (cd "$root" && find etc -type f -printf '/%p\n' 2>/dev/null | sort) >"$root/DEBIAN/conffiles" || true
  [[ -s $root/DEBIAN/conffiles ]] || rm "$root/DEBIAN/conffiles"
  (cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum) >"$root/DEBIAN/md5sums"
  cat >"$root/DEBIAN/control" <<CONTROL
Package: $name
Source: serverflow
Version: $version
Architecture: $architecture
Maintainer: The ServerFlow developers <packages@serverflow.invalid>
Installed-Size: $(du -k --apparent-size --summarize --exclude DEBIAN "$root" | cut -f1)
Depends: $depends
Section: admin
Priority: optional
Homepage: https://github.com/serverflow/serverflow
Description: $short
$(printf '%s\n' "$long" | sed 's/^/ /')
CONTROL
  find "$root" -newermt "@$SOURCE_DATE_EPOCH" -print0 | xargs -0 --no-run-if-empty touch --no-dereference --date="@$SOURCE_DATE_EPOCH"
  # shellcheck disable=SC2086 # several options
  dpkg-deb --root-owner-group $compression --build "$root" "$out/${name}_${version}_$architecture.deb" >/dev/null
  echo "$out/${name}_${version}_$architecture.deb"
}

root=$work/serverflow
program serverflow 1
package serverflow "" "command line of the ServerFlow fleet control plane" \
  "Orders deploys of Compose projects and other registered actions from a
ServerFlow control plane, follows them to their signed reports, seals
secrets to the hosts they are for, and verifies audit exports offline."

root=$work/serverflow-agent
program serverflow-agent 8
put 0644 "$top/deploy/units/serverflow-agent.service" lib/systemd/system/serverflow-agent.service
package serverflow-agent "init-system-helpers (>= 1.54)" "agent of the ServerFlow fleet control plane" \
  "Dials out to its control plane, verifies each signed order against the
policy of this machine's owner, runs it against the local Docker Engine,
and answers with signed reports. It has no shell to offer."

root=$work/serverflow-control-plane
program serverflow-control-plane 8
put 0644 "$top/deploy/units/serverflow-control-plane.service" lib/systemd/system/serverflow-control-plane.service
put 0644 "$top/deploy/units/serverflow-signer.service" lib/systemd/system/serverflow-signer.service
put 0644 "$here/sysusers.conf" usr/lib/sysusers.d/serverflow-control-plane.conf
put 0644 "$here/tmpfiles.conf" usr/lib/tmpfiles.d/serverflow-control-plane.conf
sed 's|^#= data_dir = .*|data_dir = "/var/lib/serverflow/control-plane"|; s|^# signer_socket = |signer_socket = |' "$top/deploy/control-plane.example.toml" >"$work/control-plane.toml"
put 0644 "$work/control-plane.toml" etc/serverflow/control-plane.toml
package serverflow-control-plane "systemd (>= 250) | systemd-standalone-sysusers, systemd (>= 250) | systemd-standalone-tmpfiles, init-system-helpers (>= 1.54)" \
  "control plane of ServerFlow, for a fleet of servers" \
  "Holds what a fleet of servers should look like, signs each order for one
host, and keeps an audit log that cannot be quietly edited. Hosts run the
package serverflow-agent; people use the package serverflow."
