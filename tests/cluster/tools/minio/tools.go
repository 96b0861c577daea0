//go:build tools

// Package tools pins the programs that the test cluster builds: go.sum holds the hash of every module.
package tools

import (
	_ "github.com/minio/minio"
)
