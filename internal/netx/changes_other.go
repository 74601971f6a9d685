//go:build !linux

package netx

import "context"

// newNotices polls: there is no portable notice of changes.
func newNotices(context.Context) (wait func(context.Context) bool, stop func()) {
	return poll, func() {}
}
