# The image under test: the binary of the dev profile that the tests run, packed. Sourced after cache.sh.
JOB_IMAGE=localhost/kubectl-backup:test
JOB_IMAGE_TAR=$CACHE/job-image.tar

build_job_image() {
  "$ROOT/job-image/build.sh" "$CARGO_TARGET_DIR/$TARGET/debug/kubectl-backup" "$(dpkg --print-architecture)" "$JOB_IMAGE" "$JOB_IMAGE_TAR"
}

# what the store's contract suite needs of the MinIO that is up
s3_test_environment() {
  . "${KUBECTL_BACKUP_CLUSTERS:-/tmp/kubectl-backup-clusters}/minio/env"
  export AWS_ACCESS_KEY_ID=$S3_ROOT_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY=$S3_ROOT_SECRET_ACCESS_KEY
  export KUBECTL_BACKUP_TEST_S3="s3://$S3_BUCKET/contract?region=$S3_REGION&endpoint=$S3_ENDPOINT"
}
