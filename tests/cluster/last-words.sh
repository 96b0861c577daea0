#!/bin/bash
# What to look at first when a run on the clusters failed: our own Jobs, pods, events, and the ends of the daemons' logs.
. "$(dirname "$0")/lib.sh"
for name in a b; do
  [ -e "$CLUSTERS/$name/env" ] || continue
  echo "---- cluster $name"
  "$HERE/kubectl" $name -n kubectl-backup get jobs,pods,configmaps -o wide 2>&1 | tail -n 30
  "$HERE/kubectl" $name -n kubectl-backup get events --sort-by=.lastTimestamp 2>&1 | tail -n 15
  for log in "$CLUSTERS/$name"/log/kubelet.log "$CLUSTERS/$name"/log/kube-apiserver.log; do
    [ -e "$log" ] && { echo "-- $log"; grep -E '^E|error' "$log" | tail -n 5 | cut -c1-300; }
  done
done
