//go:build tools

// Package tools pins the older API server that the tests restore onto: go.sum holds the hash of every module.
package tools

import _ "k8s.io/kubernetes/cmd/kube-apiserver"
