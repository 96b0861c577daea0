#!/bin/bash
# make demo: starts a real Kubernetes and a real S3 server on this machine, backs a namespace up through a Job, deletes
# it, restores it, and compares every object with what was there before. Shows every command it runs.
set -euo pipefail
cd "$(dirname "$0")/.."; . tests/cluster/cache.sh
bold=$'\e[1m' plain=$'\e[0m'; [ -t 1 ] || bold="" plain=""
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
run() { printf '%s$ %s%s\n' "$bold" "$*" "$plain"; "$@"; }

say "Preparing: packages, cluster binaries and the plugin (about 15 minutes the first time, seconds later)"
tests/cluster/install-packages.sh
tests/cluster/build-binaries.sh >"$CACHE/build-binaries.log" 2>&1 &
binaries=$!
cargo build --locked --quiet --target "$TARGET" --bin kubectl-backup
wait $binaries || { tail -n 30 "$CACHE/build-binaries.log"; exit 1; }
. tests/cluster/job-image.sh
build_job_image

say "A real Kubernetes, and MinIO for its bucket"
scratch=$(mktemp -d)
down() { tests/cluster/minio down; tests/cluster/down a; rm -rf "$scratch"; }
trap down EXIT
run tests/cluster/up a
run tests/cluster/minio up
run tests/cluster/load a "$JOB_IMAGE_TAR"
. "${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters}/a/env"
. "${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters}/minio/env"
export KUBECONFIG
# kubectl finds plugins by name on the PATH
mkdir "$scratch/bin"; ln -s "$CARGO_TARGET_DIR/$TARGET/debug/kubectl-backup" "$BIN/kubectl" "$scratch/bin/"
export PATH=$scratch/bin:$PATH

say "What the cluster needs: a namespace, two service accounts, their rights, and where the bucket is"
run kubectl backup init --location "s3://$S3_BUCKET/demo?region=$S3_REGION&endpoint=$S3_ENDPOINT" \
  --role-arn "$ROLE_ARN_A" --image "$JOB_IMAGE"

say "An application"
run kubectl create namespace shop
for file in shop order; do sed 's/NAMESPACE/shop/g; s/SUFFIX/s/g' "tests/fixtures/$file.yaml" >"$scratch/$file.yaml"; done
run kubectl apply -f "$scratch/shop.yaml"
run kubectl wait --for=condition=Established crd/orderss.shop.example.com --timeout=30s
run kubectl apply -f "$scratch/order.yaml"
run kubectl -n shop rollout status deployment/web --timeout=120s

# what a restore is compared with: every object that it is to bring back, less what tidy.json lists with its reasons
cluster_scoped="crd/orderss.shop.example.com priorityclass/shop-s pv/shop-data-s clusterrole/shop:reader-s clusterrolebinding/shop:reader-s"
namespaced="serviceaccounts,roles,rolebindings,configmaps,secrets,persistentvolumeclaims,services,deployments,cronjobs,networkpolicies,horizontalpodautoscalers,orderss"
objects() {
  { kubectl get namespace shop -o json; for one in $cluster_scoped; do kubectl get "${one%%/*}" "${one#*/}" -o json; done
    kubectl -n shop get "$namespaced" -o json | jq '.items[]'; } |
    jq -S -L src/rules 'include "tidy"; tidied' | jq -s 'sort_by(.kind, .metadata.name)'
}
objects >"$scratch/before.json"

say "The backup: a Job writes it to the bucket under an identity of its own"
run kubectl backup ns shop --volumes=skip # the claim comes back, the data on its volume is not this version's to save
run kubectl backup list
run kubectl backup describe latest

say "The accident"
run kubectl delete namespace shop --timeout=120s
run kubectl delete $cluster_scoped

say "The restore: the plan first, then what was planned"
run kubectl backup restore latest --dry-run=client
run kubectl backup restore latest --yes
run kubectl -n shop rollout status deployment/web --timeout=120s
run kubectl -n shop get all,pvc,orderss

say "Every object against what it was before, less the paths of src/rules/tidy.json"
objects >"$scratch/after.json"
run diff -u "$scratch/before.json" "$scratch/after.json"
printf '%s objects are what they were.\n' "$(jq length "$scratch/after.json")"
