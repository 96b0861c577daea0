#!/bin/bash
# pki.sh a|b: makes the cluster's certificates, service-account key and kubeconfigs into the cache and prints the folder.
# They outlive the cluster: a copied kubeconfig, and what MinIO knows of the issuer, stay right when it is started again.
# EC keys, because they cost nothing to make; the service-account key is RSA, because STS servers expect RS256.
set -euo pipefail
. "$(dirname "$0")/lib.sh"; use_cluster "${1:-}"

pki=$CACHE/cluster/pki-$CLUSTER-$(sha256sum < <(cat "$HERE/pki.sh"; echo "$API_SERVER") | cut -c1-12)
# a week before they end, new ones
if [ -e "$pki" ] && openssl x509 -noout -checkend 604800 -in "$pki/ca.crt" >/dev/null; then echo "$pki"; exit; fi

umask 077
mkdir -p "$CACHE/cluster"
work=$(mktemp -d "$pki.XXXXXX"); trap 'rm -rf "$work"' EXIT
cd "$work"
new_key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 365)
openssl req -x509 "${new_key[@]}" -subj "/CN=test cluster $CLUSTER" -keyout ca.key -out ca.crt 2>/dev/null

certificate() { # NAME SUBJECT USAGE [SUBJECT_ALT_NAME]
  openssl req -x509 "${new_key[@]}" -CA ca.crt -CAkey ca.key -subj "$2" -addext "extendedKeyUsage=$3" \
    -addext basicConstraints=critical,CA:FALSE ${4:+-addext "subjectAltName=$4"} -keyout "$1.key" -out "$1.crt" 2>/dev/null
}
certificate apiserver /CN=kube-apiserver serverAuth \
  "IP:$NODE_IP,IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:localhost"
certificate kubelet-serving /O=system:nodes/CN=system:node:node1 serverAuth "IP:$NODE_IP,DNS:node1"
certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
certificate admin /O=system:masters/CN=admin clientAuth
certificate controller-manager /CN=system:kube-controller-manager clientAuth
certificate scheduler /CN=system:kube-scheduler clientAuth
certificate proxy /CN=system:kube-proxy clientAuth
certificate kubelet /O=system:nodes/CN=system:node:node1 clientAuth
openssl genrsa -out service-account.key 2048 2>/dev/null
openssl rsa -in service-account.key -pubout -out service-account.pub 2>/dev/null

# everything in them as data: the files can be copied anywhere
base64_of() { base64 -w0 "$1"; }
for user in admin controller-manager scheduler proxy kubelet; do
  cat >$user.kubeconfig <<K
apiVersion: v1
kind: Config
current-context: test-$CLUSTER
contexts: [{name: test-$CLUSTER, context: {cluster: test-$CLUSTER, user: $user-$CLUSTER}}]
clusters: [{name: test-$CLUSTER, cluster: {server: "$API_SERVER", certificate-authority-data: $(base64_of ca.crt)}}]
users: [{name: $user-$CLUSTER, user: {client-certificate-data: $(base64_of $user.crt), client-key-data: $(base64_of $user.key)}}]
K
done
rm -rf "$pki"
mv -T "$work" "$pki"
echo "$pki"
