#!/bin/bash
# Runs inside the node: connects it and starts Kubernetes as plain background processes, in the order in which they need
# each other, so that none of them has to come back after a failed attempt (their pauses between attempts are seconds).
# Environment: what up sets.
set -euo pipefail
. "$HERE/lib.sh"
log=$STATE/log
start() { setsid "${@:2}" >"$log/$1.log" 2>&1 </dev/null & }

ip addr add "$NODE_IP/24" dev eth0
ip link set eth0 up
# Nothing but this machine's test addresses is reachable, and what is not fails at once instead of timing out.
ip route add "$NETWORK.0.0/16" via "$HOST_IP"
ip route add "$SERVICE_SUBNET" via "$HOST_IP" # kube-proxy turns it into something else, if the service exists
ip route add unreachable default
iptables -A FORWARD -d "$SERVICE_SUBNET" -j REJECT
iptables -A OUTPUT -o eth0 -d "$SERVICE_SUBNET" -j REJECT

start etcd "$BIN/etcd" --name=node1 --data-dir="$STATE/etcd" --unsafe-no-fsync \
  --listen-client-urls=http://127.0.0.1:2379 --advertise-client-urls=http://127.0.0.1:2379 \
  --listen-peer-urls=http://127.0.0.1:2380 --initial-advertise-peer-urls=http://127.0.0.1:2380 \
  --initial-cluster=node1=http://127.0.0.1:2380
start kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
  --advertise-address="$NODE_IP" --bind-address=0.0.0.0 --secure-port=6443 --service-cluster-ip-range="$SERVICE_SUBNET" \
  --client-ca-file="$PKI/ca.crt" --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --service-account-issuer="$API_SERVER" --api-audiences="https://kubernetes.default.svc,$API_SERVER" \
  --service-account-signing-key-file="$PKI/service-account.key" --service-account-key-file="$PKI/service-account.pub" \
  --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
  --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key"
PATH=$BIN:$PATH start containerd "$BIN/containerd" -c "$STATE/containerd/config.toml"

wait_for 60 "containerd" "$log/containerd.log" "$BIN/ctr" -a "$CONTAINERD_SOCKET" version
for image in "$IMAGES"/*.tar; do
  "$BIN/ctr" -a "$CONTAINERD_SOCKET" -n k8s.io images import "$image" >>"$log/import.log" 2>&1
done

api_server_says() { curl -sf --cacert "$PKI/ca.crt" --cert "$PKI/admin.crt" --key "$PKI/admin.key" "$API_SERVER$1"; }
# kubelet and kube-proxy can begin as soon as it answers, a second before it has made the roles of the controllers
wait_for 60 "the API server of cluster $CLUSTER to answer" "$log/kube-apiserver.log" api_server_says /version
start kubelet "$BIN/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$PKI/kubelet.kubeconfig" \
  --hostname-override=node1 --node-ip="$NODE_IP" --cert-dir=/var/lib/kubelet/pki --v=2
wait_for 60 "the API server of cluster $CLUSTER to be ready" "$log/kube-apiserver.log" api_server_says /readyz
start kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$PKI/controller-manager.kubeconfig" \
  --use-service-account-credentials=true --service-account-private-key-file="$PKI/service-account.key" \
  --root-ca-file="$PKI/ca.crt" --leader-elect=false --allocate-node-cidrs=false \
  --kube-api-qps=500 --kube-api-burst=1000
start kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$PKI/scheduler.kubeconfig" --leader-elect=false
start kube-proxy "$BIN/kube-proxy" --kubeconfig="$PKI/proxy.kubeconfig" --proxy-mode=iptables \
  --cluster-cidr="$POD_SUBNET" --hostname-override=node1 \
  --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
