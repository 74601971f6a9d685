package obs

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	masked = "[redacted]"
	// maxString is the longest string that is logged whole, in bytes.
	maxString = 4096
	// timeFormat is the format of times in every output of Kith.
	timeFormat = "2006-01-02T15:04:05.000Z07:00"
)

// Secret is a string that shows itself nowhere: not in logs, not by package fmt,
// not in JSON. Convert it with string(s) where the secret itself is needed.
type Secret string

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(masked) }

// Format implements [fmt.Formatter], for every verb.
func (Secret) Format(s fmt.State, _ rune) { _, _ = s.Write([]byte(masked)) }

// MarshalText implements [encoding.TextMarshaler]; a Secret cannot be stored
// by way of it.
func (Secret) MarshalText() ([]byte, error) { return []byte(masked), nil }

// secretWords mark a key as secret wherever they occur in it.
var secretWords = []string{
	"password", "passwd", "passphrase", "token", "private", "secret",
	"credential", "authorization", "cookie",
}

// cleanAttr is the ReplaceAttr function of all handlers: it masks secrets, cuts
// what is too long and gives times one form.
func cleanAttr(groups []string, a slog.Attr) slog.Attr {
	if secretKey(a.Key) || anySecret(groups) {
		return slog.String(a.Key, masked)
	}
	switch a.Value.Kind() {
	case slog.KindString:
		return slog.String(a.Key, cut(a.Value.String()))
	case slog.KindTime:
		return slog.String(a.Key, a.Value.Time().UTC().Format(timeFormat))
	case slog.KindAny:
		a.Value = cleanValue(a.Value)
	}
	return a
}

func cleanValue(v slog.Value) slog.Value {
	switch x := v.Any().(type) {
	case *rsa.PrivateKey, *ecdsa.PrivateKey, *ecdh.PrivateKey,
		ed25519.PrivateKey, *ed25519.PrivateKey,
		tls.Certificate, *tls.Certificate:
		return slog.StringValue(masked)
	case *time.Time:
		if x != nil {
			return slog.StringValue(x.UTC().Format(timeFormat))
		}
	case []byte:
		return slog.StringValue(cut(fmt.Sprintf("%x", x[:min(len(x), maxString)])))
	case error:
		return slog.StringValue(cut(errorText(x)))
	}
	return v
}

// errorText guards against Error methods that fail on a nil receiver, as the
// handlers of package slog do.
func errorText(err error) (text string) {
	defer func() {
		if p := recover(); p != nil {
			text = fmt.Sprintf("[error of type %T that cannot be shown]", err)
		}
	}()
	return err.Error()
}

func anySecret(groups []string) bool {
	for _, g := range groups {
		if secretKey(g) {
			return true
		}
	}
	return false
}

func secretKey(key string) bool {
	key = strings.ToLower(key)
	if key == "pin" { // as a part of a word it would hide "ping"
		return true
	}
	for _, word := range secretWords {
		if strings.Contains(key, word) {
			return true
		}
	}
	return false
}

// cut shortens s to maxString bytes at a character boundary and says by how much.
func cut(s string) string {
	if len(s) <= maxString {
		return s
	}
	end := maxString
	for end > maxString-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return fmt.Sprintf("%s…(%d bytes more)", s[:end], len(s)-end)
}
