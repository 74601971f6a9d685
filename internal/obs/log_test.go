package obs_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kith-im/kith/internal/obs"
)

func TestZeroOptionsLogTextAtInfo(t *testing.T) {
	var b bytes.Buffer
	log, _ := obs.NewLogger(&b, obs.Options{})
	log.Debug("hidden")
	log.Info("shown", "n", 1)
	got := b.String()
	if strings.Contains(got, "hidden") || !strings.Contains(got, `level=INFO msg=shown n=1`) {
		t.Errorf("log is %q", got)
	}
}

func TestTimesAreUTCWithMilliseconds(t *testing.T) {
	var b bytes.Buffer
	log, _ := obs.NewLogger(&b, obs.Options{Format: obs.FormatJSON})
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_999_999, time.FixedZone("", 3600))
	log.Info("x", "at", at)
	var line struct{ Time, At string }
	if err := json.Unmarshal(b.Bytes(), &line); err != nil {
		t.Fatal(err)
	}
	if line.At != "2026-03-04T04:06:07.089Z" {
		t.Errorf("at = %s", line.At)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000Z", line.Time); err != nil {
		t.Errorf("time of the line: %v", err)
	}
}

func TestLevelsPerPackageChangeAtRunTime(t *testing.T) {
	var b bytes.Buffer
	root, levels := obs.NewLogger(&b, obs.Options{Levels: map[string]slog.Level{"peer": slog.LevelError}})
	dht, peer := levels.Logger("dht"), root.With(obs.PackageKey, "peer")
	grouped := dht.WithGroup("search").With(obs.PackageKey, "peer")

	shown := func(log *slog.Logger, level slog.Level) bool {
		b.Reset()
		log.Log(t.Context(), level, "x")
		return b.Len() > 0
	}
	if shown(dht, slog.LevelDebug) || shown(peer, slog.LevelWarn) || !shown(peer, slog.LevelError) {
		t.Error("levels of the options are not obeyed")
	}
	if err := levels.Set(" dht=debug, peer=default ,warn"); err != nil {
		t.Fatal(err)
	}
	if !shown(dht, slog.LevelDebug) || !shown(grouped, slog.LevelDebug) {
		t.Error("dht=debug does not reach loggers made before")
	}
	if shown(peer, slog.LevelInfo) || shown(root, slog.LevelInfo) || !shown(peer, slog.LevelWarn) {
		t.Error("the default level is not obeyed")
	}
	if got := levels.String(); got != "warn,dht=debug" {
		t.Errorf("levels are %q", got)
	}
}

func TestSetAppliesAllOrNothing(t *testing.T) {
	_, levels := obs.NewLogger(&bytes.Buffer{}, obs.Options{})
	var many strings.Builder
	for i := range 257 {
		fmt.Fprintf(&many, "p%d=debug,", i)
	}
	for _, spec := range []string{
		"dht=debug,loud", "dht=", "=debug", "dht=debug=info", "D HT=debug",
		strings.Repeat("a", 65) + "=debug", many.String(), strings.Repeat(",", 4097),
	} {
		if err := levels.Set(spec); err == nil {
			t.Errorf("Set(%.40q) succeeded", spec)
		}
		if got := levels.String(); got != "info" {
			t.Fatalf("after Set(%.40q) the levels are %q", spec, got)
		}
	}
}

func FuzzLevels(f *testing.F) {
	f.Add("info,dht=debug")
	f.Add("dht=default,peer=warn+2")
	f.Fuzz(func(t *testing.T, spec string) {
		_, levels := obs.NewLogger(&bytes.Buffer{}, obs.Options{})
		if levels.Set(spec) != nil {
			return
		}
		_, again := obs.NewLogger(&bytes.Buffer{}, obs.Options{})
		if err := again.Set(levels.String()); err != nil || again.String() != levels.String() {
			t.Errorf("%q does not survive: %q, %v", levels.String(), again.String(), err)
		}
	})
}

type account struct{ password string }

func (a account) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", "alice"), slog.String("password", a.password))
}

func TestSecretsAreMasked(t *testing.T) {
	const secret = "hunter2"
	for _, format := range []obs.Format{obs.FormatText, obs.FormatJSON} {
		var b bytes.Buffer
		log, _ := obs.NewLogger(&b, obs.Options{Format: format})
		log.With("apiToken", secret).Info("x",
			"PASSWORD", secret, "pin", secret, "private_key", []byte(secret),
			"any", obs.Secret(secret), "account", account{secret},
			slog.Group("secret", "inner", secret), slog.Group("open", "session_cookie", secret),
			"key", ed25519.PrivateKey(secret), "list", []obs.Secret{secret})
		log.WithGroup("credentials").Info("x", "user", secret)
		got := b.String()
		if strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) {
			t.Errorf("%s log shows the secret: %s", format, got)
		}
		if !strings.Contains(got, "alice") {
			t.Errorf("%s log hides too much: %s", format, got)
		}
	}
	if got := fmt.Sprintf("%s %v %+v %#v %q %x", obs.Secret(secret), obs.Secret(secret), obs.Secret(secret),
		obs.Secret(secret), obs.Secret(secret), obs.Secret(secret)); strings.Contains(got, "hunter") {
		t.Errorf("package fmt shows the secret: %s", got)
	}
}

func TestPingIsNoSecret(t *testing.T) {
	var b bytes.Buffer
	log, _ := obs.NewLogger(&b, obs.Options{})
	log.Info("x", "ping", "10ms")
	if !strings.Contains(b.String(), "ping=10ms") {
		t.Errorf("log is %q", b.String())
	}
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func TestLinesAreBounded(t *testing.T) {
	var b bytes.Buffer
	log, _ := obs.NewLogger(&b, obs.Options{})
	long := strings.Repeat("é", 5000)
	var none *nilError
	log.Info(long, "text", long, "err", errors.New(long), "bytes", []byte(long), "none", error(none))
	if b.Len() > 6*4096 {
		t.Errorf("the line has %d bytes", b.Len())
	}
	if !strings.Contains(b.String(), "bytes more)") || strings.ContainsRune(b.String(), '\uFFFD') {
		t.Error("the line does not say that it was cut, or cuts a character in two")
	}
}

func TestLoggerIsSafeForConcurrentUse(t *testing.T) {
	var b bytes.Buffer
	_, levels := obs.NewLogger(&b, obs.Options{Format: obs.FormatJSON})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 100 {
				if err := levels.Set([]string{"dht=info", "dht=debug"}[i%2]); err != nil {
					t.Error(err)
				}
				levels.Logger("dht").Info("x", "i", i)
			}
		})
	}
	wg.Wait()
	lines := bytes.Split(bytes.TrimSpace(b.Bytes()), []byte("\n"))
	if len(lines) != 400 {
		t.Errorf("%d lines instead of 400", len(lines))
	}
	for _, line := range lines {
		if !json.Valid(line) {
			t.Fatalf("line %q is torn", line)
		}
	}
}

func BenchmarkDisabled(b *testing.B) {
	_, levels := obs.NewLogger(&bytes.Buffer{}, obs.Options{})
	log := levels.Logger("dht")
	b.ReportAllocs()
	for b.Loop() {
		log.Debug("packet", "n", 1)
	}
}
