# What the scripts of the test clusters share: names and addresses, waiting, background processes, removal.
# Sourced; "lib.sh NAME" also sets what belongs to cluster NAME (a or b).
# Two test runs can stand side by side: each has a number, KUBECTL_BACKUP_CLUSTER_SET (0 to 9), and with it a network,
# names and a folder of its own. Everything below 10.200.0.0/16 (10.201.0.0/16 ...) exists on this machine only: no
# address of it is ever routed to another one.
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=cache.sh
. "$HERE/cache.sh"
SET=${KUBECTL_BACKUP_CLUSTER_SET:-0}
[[ $SET = [0-9] ]] || { echo "KUBECTL_BACKUP_CLUSTER_SET is a digit, not $SET" >&2; exit 2; }
CLUSTERS=${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters${SET/#0/}}
# the sockets of containerd are below it, and a socket's path ends at 107 bytes
[ ${#CLUSTERS} -le 60 ] || { echo "KUBECTL_BACKUP_CLUSTERS is too long: $CLUSTERS" >&2; exit 2; }

SERVICE_SUBNET=10.96.0.0/16
NETWORK=10.20$SET
MINIO_IP=$NETWORK.255.1 MINIO_PORT=9000
MINISTACK_IP=$NETWORK.255.2 MINISTACK_PORT=4566

fail() { echo "$*" >&2; exit 1; }

use_cluster() {
  case ${1:-} in
    a) SUBNET=$NETWORK.1 POD_SUBNET=10.24$SET.1.0/24 ;;
    b) SUBNET=$NETWORK.2 POD_SUBNET=10.24$SET.2.0/24 ;;
    *) echo "usage: $(basename "$0") a|b ..." >&2; exit 2 ;;
  esac
  CLUSTER=$1
  STATE=$CLUSTERS/$CLUSTER
  NODE_IP=$SUBNET.1 HOST_IP=$SUBNET.254
  API_SERVER=https://$NODE_IP:6443
  LINK=kbk$SET-$CLUSTER                # the host's end of the node's cable; 15 characters at most
  GROUP=kubectl-backup$SET-$CLUSTER    # the name of the node's cgroup in every hierarchy
}

# lock NAME: one script at a time works on NAME; the lock ends with the script (children must not inherit fd 9)
lock() {
  mkdir -p "$CLUSTERS"
  exec 9>"$CLUSTERS/$1.lock"
  flock -w 600 9 || fail "another script has been working on $1 for ten minutes"
}

# wait_for SECONDS WHAT LOG COMMAND...: until COMMAND succeeds; else says what was waited for and shows LOG's end
wait_for() {
  local seconds=$1 what=$2 log=$3 deadline=$((SECONDS + $1)); shift 3
  until "$@" >/dev/null 2>&1; do
    if [ $SECONDS -gt $deadline ]; then
      echo "waited $seconds s for $what, in vain" >&2
      if [ -e "$log" ]; then echo "the end of $log:" >&2; tail -n 20 "$log" >&2; fi
      exit 1
    fi
    sleep 0.05
  done
}

# ---- cgroups (version 1: every hierarchy has its own tree) ----

# hierarchies: "controllers path" of each v1 hierarchy, path being this process' own cgroup there
hierarchies() { sed -nE 's/^[0-9]+:(name=)?([^:]+):(.*)$/\2 \3/p' /proc/self/cgroup; }

# join_cgroups: puts the calling (sub)shell, and so all that it starts, into the node's cgroup in every hierarchy,
# made below the caller's own one where it is missing; limits set on the caller go on holding
join_cgroups() {
  local controllers path group existing
  while read -r controllers path; do
    existing=$(find "/sys/fs/cgroup/$controllers" -type d -name "$GROUP" -print -quit)
    group=${existing:-/sys/fs/cgroup/$controllers${path%/}/$GROUP}
    if [ -z "$existing" ]; then
      mkdir -p "$group"
      if [[ ,$controllers, == *,cpuset,* ]]; then # an empty cpuset accepts no process
        cat "$group/../cpuset.mems" >"$group/cpuset.mems"
        cat "$group/../cpuset.cpus" >"$group/cpuset.cpus"
        echo 1 >"$group/cgroup.clone_children"
      fi
    fi
    echo "$BASHPID" >"$group/cgroup.procs"
  done < <(hierarchies)
}

cgroup_dirs() { find /sys/fs/cgroup -depth -type d \( -name "$GROUP" -o -path "*/$GROUP/*" \) 2>/dev/null || true; }
# every process of the node, whoever started it and from wherever: membership is inherited and nothing leaves it
cgroup_processes() { cgroup_dirs | sed 's|$|/cgroup.procs|' | xargs -r cat 2>/dev/null | sort -u || true; }

# ---- the node ----

in_node() { # PROGRAM ARGS...: replaces the calling (sub)shell
  join_cgroups
  exec nsenter -t "$(cat "$STATE/init.pid")" -m -C -n -u -i -p --wdns="$PWD" -- "$@" 9>&-
}

node_is_up() {
  [ -s "$STATE/init.pid" ] && [ "$(readlink "/proc/$(cat "$STATE/init.pid")/exe" 2>/dev/null)" = "$STATE/pause" ]
}

no_cgroup_processes() { [ -z "$(cgroup_processes)" ]; }
loop_devices() { losetup -l -n -O NAME,BACK-FILE 2>/dev/null | awk -v dir="$STATE/" 'index($2, dir) == 1 {print $1}'; }
no_loop_devices() { [ -z "$(loop_devices)" ]; }
mounts() { awk -v dir="$STATE" '$5 == dir || index($5, dir "/") == 1 {print $5}' /proc/self/mountinfo | sort -r; }

# remove_node: every trace of the node, of this run or of one that was killed, started from wherever. The processes are
# found by cgroup, so no pid file can be wrong; with the last of them go its namespaces: mounts, interfaces, iptables.
remove_node() {
  local pids dir device path deadline=$((SECONDS + 30))
  while pids=$(cgroup_processes) && [ -n "$pids" ]; do
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    [ $SECONDS -le $deadline ] || fail "waited 30 s for the processes of cluster $CLUSTER to end, in vain: $pids"
    sleep 0.02
  done
  ! ip link show "$LINK" >/dev/null 2>&1 || ip link del "$LINK" 2>/dev/null || true
  for path in $(mounts); do umount -l "$path"; done
  # loop devices belong to the whole machine; one that is still mounted in a namespace about to vanish goes with it
  for device in $(loop_devices); do losetup -d "$device" 2>/dev/null || true; done
  wait_for 30 "the loop devices of cluster $CLUSTER to be free" "" no_loop_devices
  # a cgroup can be busy for a moment after its last process ended
  while dir=$(cgroup_dirs) && [ -n "$dir" ]; do
    xargs -r rmdir 2>/dev/null <<<"$dir" || true
    [ $SECONDS -le $deadline ] || fail "waited 30 s to remove the cgroups of cluster $CLUSTER, in vain: $dir"
  done
  rm -rf "$STATE"
}

# ---- servers on the host's side ----

# start_server DIR COMMAND...: in the background, output to DIR/log, found again by DIR/pid
start_server() {
  local dir=$1; shift
  setsid "$@" >"$dir/log" 2>&1 </dev/null 9>&- &
  echo "$! $(process_start $!)" >"$dir/pid"
}
process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
# server_runs DIR: its pid may by now belong to another process, but not with the same time of start. One that was killed
# keeps its ports until the last of its threads has ended, which may be after its first.
server_runs() {
  local pid start
  read -r pid start 2>/dev/null <"$1/pid" && [ -n "$start" ] && [ "$(process_start "$pid")" = "$start" ] &&
    { [ "$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | cut -c1)" != Z ] ||
      [ "$(ls "/proc/$pid/task" 2>/dev/null | wc -l)" -gt 1 ]; }
}
stop_server() {
  local dir=$1 pid deadline=$((SECONDS + 10))
  while server_runs "$dir"; do
    read -r pid _ <"$dir/pid"
    if [ $SECONDS -gt $deadline ]; then kill -9 "$pid" 2>/dev/null || true; else kill "$pid" 2>/dev/null || true; fi
    sleep 0.05
  done
  rm -f "$dir/pid"
}

# An address for a server that both clusters reach, on a bridge of its own without ports: packets from a node arrive
# over the node's cable and are for this machine. Nothing listens on an address that the machine shows to the outside.
add_address() { # INTERFACE ADDRESS
  ip link show "$1" >/dev/null 2>&1 || ip link add "$1" type bridge
  ip addr replace "$2/32" dev "$1"
  ip link set "$1" up
}
remove_address() { ! ip link show "$1" >/dev/null 2>&1 || ip link del "$1"; }
