#!/bin/bash
# The first process of a node, in namespaces of its own (pid, mount, cgroup, net, uts, ipc): prepares them and turns into
# pause, which reaps orphans. When it is killed, every process, mount, interface and iptables rule of the node goes with it.
# Environment: STATE.
set -euo pipefail
mount --make-rprivate /
hostname node1
mount -t proc proc /proc
mount -t sysfs sysfs /sys

# the node sees its own cgroup as the root of every hierarchy
hierarchies=$(sed -nE 's/^[0-9]+:(name=)?([^:]+):.*$/\1\2/p' /proc/self/cgroup)
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for hierarchy in $hierarchies; do
  dir=/sys/fs/cgroup/${hierarchy#name=}
  mkdir "$dir"
  if [ "$dir" = "/sys/fs/cgroup/$hierarchy" ]; then options=$hierarchy; else options=none,$hierarchy; fi
  mount -t cgroup -o "$options" cgroup "$dir"
done

mount -t tmpfs -o mode=755 run /run
mount --make-rshared /
# private copies of the fixed paths that kubelet uses. Private before shared: otherwise every volume is mounted at two
# places and unmounting fails with "still mounted by other references".
for path in /var/lib/kubelet /var/log/pods /var/log/containers; do
  mkdir -p "$STATE/node$path" "$path"
  mount --bind "$STATE/node$path" "$path"
  mount --make-private "$path"
  mount --make-rshared "$path"
done
# kubelet wants these values; shown to it, instead of set for the whole machine
mkdir -p "$STATE/sysctl"
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=$STATE/sysctl/$(tr / _ <<<"${setting%%=*}")
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%%=*}"
done
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1
touch "$STATE/namespaces-ready"
exec "$STATE/pause"
