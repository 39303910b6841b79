#!/usr/bin/env bash
# Makes a throw-away TLS key and certificate of the kind the control plane uses, and prints the pin of its key.
#
#   ./certs-example/make.sh             into a temporary directory, whose name is printed
#   ./certs-example/make.sh --example   the same, and puts certificate and pin (never the key) into this directory
#
# Needs openssl. Nothing made here is used by anything: `serverflow-control-plane init` makes the real keys.
set -euo pipefail
umask 077

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
case ${1-} in
  '') example=no ;;
  --example) example=yes ;;
  *)
    echo "usage: $0 [--example]" >&2
    exit 2
    ;;
esac

folder=$(mktemp -d)

# Two keys, because root metadata names at least two pins: the one in use, and the one to come, so that the key can be changed
# without a host losing its way.
for name in now next; do
  openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$folder/tls-$name.key" 2>/dev/null ||
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$folder/tls-$name.key" 2>/dev/null
done

# Self-signed: an agent asks no authority. It compares the key inside with its pin, and ignores names and dates.
openssl req -x509 -new -key "$folder/tls-now.key" -days 36500 -subj '/CN=serverflow control plane (example)' \
  -addext 'subjectAltName=DNS:control-plane.example.org' -out "$folder/tls-now.crt"

# The pin: SHA-256 over the certificate's SubjectPublicKeyInfo in DER (RFC 7469, section 2.4), in base64.
pin_of_key() { openssl pkey -in "$1" -pubout -outform DER | openssl dgst -sha256 -binary | openssl base64 -A; }
pin_of_certificate() {
  openssl x509 -in "$1" -noout -pubkey | openssl pkey -pubin -outform DER | openssl dgst -sha256 -binary | openssl base64 -A
}

now=$(pin_of_key "$folder/tls-now.key")
next=$(pin_of_key "$folder/tls-next.key")
seen=$(pin_of_certificate "$folder/tls-now.crt")
if [[ $now != "$seen" ]]; then
  echo "the pin of the key and the pin of its certificate differ: $now, $seen" >&2
  exit 1
fi
printf 'now   sha256/%s\nnext  sha256/%s\n' "$now" "$next" | tee "$folder/pins.txt"

if [[ $example == yes ]]; then
  install -m 0644 "$folder/tls-now.crt" "$here/tls-now.crt"
  install -m 0644 "$folder/pins.txt" "$here/pins.txt"
  rm -rf "$folder"
  echo "certificate and pins lie in $here; the keys are deleted" >&2
else
  echo "made in $folder; look at it with: openssl x509 -in $folder/tls-now.crt -noout -text" >&2
fi
