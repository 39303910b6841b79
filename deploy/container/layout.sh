#!/bin/sh
# Lays out the root of the control plane's image: the program, the libraries it is linked to with their loader, and an empty
# state directory. The Dockerfile uses it, and the test that cannot pull the images the Dockerfile begins with.
#
#   deploy/container/layout.sh PROGRAM ROOT
set -eu
program=$1
root=$2
mkdir -p "$root/usr/bin" "$root/var/lib/serverflow" "$root/tmp" "$root/etc"
install -m 0755 "$program" "$root/usr/bin/serverflow-control-plane"
strip --strip-unneeded "$root/usr/bin/serverflow-control-plane"
ldd "$program" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
  install -D -m 0755 "$library" "$root$library"
done
echo 'serverflow:x:65532:65532::/var/lib/serverflow:/nonexistent' >"$root/etc/passwd"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
chmod 0700 "$root/var/lib/serverflow"
chmod 1777 "$root/tmp"
