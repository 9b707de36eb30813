#!/bin/sh
# Makes an authority and a certificate for each node that is named, for docker/compose.cluster.yaml:
#   docker/certificates.sh bank-1 bank-2 bank-3
# Run it again to renew the certificates of nodes, or to add one; the authority stays. docs/operations/tls.md says what
# the certificates prove.
set -eu

days=90
folder="$(dirname "$0")/secrets/nodes"
[ $# -gt 0 ] || { echo "usage: $0 NODE..." >&2; exit 2; }

# The containers read single files of the folder as another user; on this machine nobody else gets into it.
mkdir -p "$folder"
chmod 700 "$folder"
umask 022

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$1"
}

if [ ! -f "$folder/ca.key" ]; then
    key "$folder/ca.key"
    chmod 600 "$folder/ca.key"
    openssl req -x509 -new -key "$folder/ca.key" -days 3650 -subj "/CN=bank nodes" -out "$folder/ca.pem"
fi

for node in "$@"; do
    key "$folder/$node.key.new"
    # openssl makes keys that only their owner reads; the bank runs as a user of its own.
    chmod 644 "$folder/$node.key.new"
    openssl req -new -key "$folder/$node.key.new" -subj "/CN=$node" -out "$folder/$node.csr"
    printf 'subjectAltName=URI:orchestrix://node/%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$node" > "$folder/$node.ext"
    openssl x509 -req -in "$folder/$node.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -CAcreateserial \
        -days "$days" -extfile "$folder/$node.ext" -out "$folder/$node.pem.new"
    # In place, so that a container that has the file mounted sees the new one.
    cat "$folder/$node.key.new" > "$folder/$node.key"
    cat "$folder/$node.pem.new" > "$folder/$node.pem"
    rm "$folder/$node.key.new" "$folder/$node.pem.new" "$folder/$node.csr" "$folder/$node.ext"
done
