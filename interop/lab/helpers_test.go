//go:build linux

package lab

import (
	"encoding/hex"
	"fmt"
)

func itoa(port uint16) string { return fmt.Sprint(port) }

func hexOf(s string) string { return hex.EncodeToString([]byte(s)) }
