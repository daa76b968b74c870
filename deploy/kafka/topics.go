// Package kafka holds the one list of topics, so that every program carries it.
package kafka

import _ "embed"

// Topics is the text of topics.yaml. pkg/events reads it.
//
//go:embed topics.yaml
var Topics []byte
