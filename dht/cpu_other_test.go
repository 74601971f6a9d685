//go:build !unix

package dht

import "time"

// cpuTime is not known here.
func cpuTime() time.Duration { return 0 }
