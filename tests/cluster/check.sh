#!/bin/bash
# A test of the test cluster itself: both clusters and both servers come up, do what the tests will ask of them, survive a
# killed node, and leave nothing on this machine. Ends other clusters of the same names. Takes about a minute.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
cd "$HERE"

step() { echo "$((SECONDS / 60)):$(printf %02d $((SECONDS % 60))) $*"; }
must_contain() { grep -q -- "$2" <<<"$1" || fail "expected \"$2\" in: $1"; }

all_down() { ./down a; ./down b; ./minio down; ./ministack down; }

# what a machine looks like from outside; compared before and after
settings() {
  iptables-save | sed '/^#/d; s/\[[0-9:]*\]//'
  sysctl net.ipv4.ip_forward vm.overcommit_memory kernel.panic kernel.panic_on_oops
  lsns -n -t net -o NS | sort
  ls /run/netns 2>/dev/null || true
}
left_behind() {
  local process
  for process in /proc/[0-9]*; do
    [ "$process" != "/proc/$$" ] || continue
    if { readlink "$process/exe"; tr '\0' ' ' <"$process/cmdline"; } 2>/dev/null | grep -q "$CLUSTERS/"; then
      echo "process ${process#/proc/}: $(tr '\0' ' ' <"$process/cmdline")"
    fi
  done 2>/dev/null
  grep -F "$CLUSTERS/" /proc/self/mountinfo | sed 's/^/mount: /' || true
  ip -br link | grep "^kbk$SET-" | sed 's/^/interface: /' || true
  losetup -l -n -O NAME,BACK-FILE | grep -F "$CLUSTERS/" | sed 's/^/loop device: /' || true
  find /sys/fs/cgroup -type d -name 'kubectl-backup-[ab]' | sed 's/^/cgroup: /'
  find "$CLUSTERS" -mindepth 1 ! -name '*.lock' | head -n 3 | sed 's/^/file: /'
  diff <(echo "$before") <(settings) | sed 's/^/changed: /' || true
}

job() { # CLUSTER NAME COMMAND
  ./kubectl "$1" apply -f - >/dev/null <<J
apiVersion: batch/v1
kind: Job
metadata: {name: $2, namespace: kubectl-backup}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: "localhost/bb:1", imagePullPolicy: Never, args: ["-c", "$3"]}]
J
}
job_done() { ./kubectl "$1" -n kubectl-backup wait --for=condition=Complete "job/$2" --timeout=60s >/dev/null; }
logs() { ./kubectl "$1" -n kubectl-backup logs "job/$2"; }

prepare() { # CLUSTER
  ./kubectl "$1" create namespace kubectl-backup
  ./kubectl "$1" -n kubectl-backup create serviceaccount kubectl-backup-reader
  ./kubectl "$1" -n kubectl-backup create serviceaccount other
} >/dev/null

token() { ./kubectl "$1" -n kubectl-backup create token "$2" --audience "$3"; } # CLUSTER SERVICE_ACCOUNT AUDIENCE
assume() { # STS_ENDPOINT ROLE_ARN TOKEN
  curl -sS "$1" --data-urlencode Action=AssumeRoleWithWebIdentity --data-urlencode Version=2011-06-15 \
    --data-urlencode "RoleArn=$2" --data-urlencode RoleSessionName=check --data-urlencode "WebIdentityToken=$3"
}
between() { grep -o "<$1>[^<]*" | sed 's/.*>//'; } # TAG
write_as() { # ANSWER_OF_ASSUME KEY: the status of a PUT with the keys in the answer
  curl -sS -o /dev/null -w '%{http_code}' -X PUT --data-binary hello -H "x-amz-content-sha256: UNSIGNED-PAYLOAD" \
    --aws-sigv4 "aws:amz:us-east-1:s3" --user "$(between AccessKeyId <<<"$1"):$(between SecretAccessKey <<<"$1")" \
    -H "x-amz-security-token: $(between SessionToken <<<"$1")" "$S3_ENDPOINT/$S3_BUCKET/$2"
}

all_down
before=$(settings)
trap 'all_down || true' EXIT

step "up a, up b, MinIO"
./up a; ./up b; ./minio up
prepare a; prepare b
. "$CLUSTERS/minio/env"

step "a Job with log; exec"
job a hello "echo hello from a pod; sleep 3"
./kubectl a -n kubectl-backup wait --for=create pod -l job-name=hello --timeout=30s >/dev/null
./kubectl a -n kubectl-backup wait --for=condition=Ready pod -l job-name=hello --timeout=30s >/dev/null
must_contain "$(./kubectl a -n kubectl-backup exec job/hello -- sh -c 'echo inside; exit 0')" inside
job_done a hello
must_contain "$(logs a hello)" "hello from a pod"

step "pods of both clusters reach MinIO and the API server, and nothing outside"
for cluster in a b; do
  job $cluster reach "wget -q -O- $S3_ENDPOINT/minio/health/live && nc -w 3 10.96.0.1 443 </dev/null && echo reached; nc -w 3 192.0.2.1 80 </dev/null || echo shut"
done
for cluster in a b; do
  job_done $cluster reach
  must_contain "$(logs $cluster reach)" reached
  must_contain "$(logs $cluster reach)" shut
done

step "MinIO's STS: the right token"
good=$(token a kubectl-backup-reader "$AUDIENCE_A")
for cluster in a b; do
  role=ROLE_ARN_${cluster^^} audience=AUDIENCE_${cluster^^}
  answer=$(assume "$STS_ENDPOINT" "${!role}" "$(token $cluster kubectl-backup-reader "${!audience}")")
  must_contain "$answer" "<SecretAccessKey>"
  [ "$(write_as "$answer" "from-$cluster")" = 200 ] || fail "cluster $cluster's service account could not write to the bucket"
done
must_contain "$(./s3 ls "$S3_BUCKET")" from-b

step "MinIO's STS: wrong audience, forged token, wrong subject"
must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token a kubectl-backup-reader somebody-else)")" "<Code>InvalidParameterValue"
IFS=. read -r header payload signature <<<"$good"
forged=$({ tr '_-' '/+' <<<"$payload==" | base64 -d 2>/dev/null || true; } | sed 's/kubectl-backup-reader/kubectl-backup-writer/g' | base64 -w0 | tr '+/' '-_' | tr -d '=')
must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$header.$forged.$signature")" "verification error"
answer=$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token a other "$AUDIENCE_A")")
[ "$(write_as "$answer" from-other)" = 403 ] || fail "a wrong subject's keys could write to the bucket"

step "ministack: right subject, wrong subject, other cluster"
./ministack up
(
  . "$CLUSTERS/ministack/env"
  answer=$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$good")
  must_contain "$answer" "<SecretAccessKey>"
  [ "$(write_as "$answer" from-a)" = 200 ] || fail "cluster a's service account could not write to ministack's bucket"
  must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token a other "$AUDIENCE_A")")" "<Code>AccessDenied"
  must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token b kubectl-backup-reader "$AUDIENCE_A")")" "<Code>AccessDenied"
)

step "the image of the Jobs: built, loaded, run"
image=$(mktemp -d)
for format in docker-archive oci-archive; do
  FORMAT=$format "$ROOT/job-image/build.sh" /bin/busybox "$(dpkg --print-architecture)" "localhost/kubectl-backup:$format" "$image/$format.tar"
  ./load a "$image/$format.tar" 2>/dev/null
  ./kubectl a -n kubectl-backup run "$format" --image="localhost/kubectl-backup:$format" --image-pull-policy=Never --restart=Never \
    --overrides='{"spec": {"securityContext": {"runAsNonRoot": true}}}' >/dev/null
  # busybox under another name says so and fails: enough to see that the file runs, as a user that is not root
  ./kubectl a -n kubectl-backup wait --for=jsonpath='{.status.phase}'=Failed "pod/$format" --timeout=30s >/dev/null
  must_contain "$(./kubectl a -n kubectl-backup logs "$format")" "applet not found"
done
rm -rf "$image"

step "a loop device as a local volume; then kill -9 of the node in the middle of a Job"
. "$CLUSTERS/a/env"
truncate -s 64M "$STATE/volumes/disk"
mkdir "$STATE/volumes/mnt"
./in a sh -c "mkfs.ext4 -q '$STATE/volumes/disk' && mount -o loop '$STATE/volumes/disk' '$STATE/volumes/mnt'"
[ -n "$(losetup -j "$STATE/volumes/disk")" ] || fail "the loop device is not there"
job a endless "while true; do sleep 1; done"
./kubectl a -n kubectl-backup wait --for=create pod -l job-name=endless --timeout=30s >/dev/null
./kubectl a -n kubectl-backup wait --for=condition=Ready pod -l job-name=endless --timeout=30s >/dev/null
kill -9 "$(cat "$STATE/init.pid")"
./up a
prepare a
job a again "echo again"
job_done a again
must_contain "$(logs a again)" again
# the issuer's key is the same, so MinIO needs no restart
must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token a kubectl-backup-reader "$AUDIENCE_A")")" "<SecretAccessKey>"

step "MinIO starts without b"
./down b; ./minio up
must_contain "$(assume "$STS_ENDPOINT" "$ROLE_ARN_A" "$(token a kubectl-backup-reader "$AUDIENCE_A")")" "<SecretAccessKey>"
must_contain "$(./s3 ls "$S3_BUCKET")" from-b

step "an up that is killed on its way"
bash -c 'timeout -s KILL 1.5 setsid --wait ./up b; true' >/dev/null 2>&1 # the inner bash keeps "Killed" to itself
./down b

step "a control plane goes with whoever asked for it"
asked=$(mktemp -d); mkfifo "$asked/end"
./control-plane with check <"$asked/end" >"$asked/env" 2>"$asked/log" & plane=$!
exec 8>"$asked/end"
wait_for 60 "the control plane" "$asked/log" grep -qx ready "$asked/env"
must_contain "$(KUBECONFIG=$(sed -n 's/^KUBECONFIG=//p' "$asked/env") "$(./build-binaries.sh)/kubectl" get namespaces)" kube-system
exec 8>&-
wait $plane || fail "the script of the control plane failed: $(cat "$asked/log")"
rm -rf "$asked"

step "all down, twice"
all_down; all_down
trap - EXIT
left=$(left_behind)
[ -z "$left" ] || fail "left behind:
$left"
step "nothing left"
