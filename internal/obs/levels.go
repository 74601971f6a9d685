package obs

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	maxLevels   = 256  // packages with a level of their own
	maxSpec     = 4096 // bytes of one specification
	maxPkgName  = 64   // bytes of a package name
	levelUnset  = "default"
	specExample = `"debug", "info,dht=debug" or "dht=default"`
)

// Levels holds the log level of each package and may be changed at any time.
// It comes from [NewLogger] and is safe for concurrent use; reading a level takes
// no lock, so a disabled log call stays cheap.
type Levels struct {
	root  *slog.Logger
	mu    sync.Mutex // serialises writers
	table atomic.Pointer[levelTable]
}

// levelTable is immutable once published.
type levelTable struct {
	fallback slog.Level
	byPkg    map[string]slog.Level
}

func newLevels(o Options) *Levels {
	t := &levelTable{fallback: o.Level, byPkg: make(map[string]slog.Level)}
	for _, pkg := range slices.Sorted(maps.Keys(o.Levels)) {
		if len(t.byPkg) < maxLevels && validPkg(pkg) {
			t.byPkg[pkg] = o.Levels[pkg]
		}
	}
	l := new(Levels)
	l.table.Store(t)
	return l
}

// Logger returns the logger of one package, such as "dht" or "dht/proxy".
func (l *Levels) Logger(pkg string) *slog.Logger {
	return l.root.With(PackageKey, pkg)
}

// Level returns the least level at which pkg logs.
func (l *Levels) Level(pkg string) slog.Level {
	t := l.table.Load()
	if level, ok := t.byPkg[pkg]; ok {
		return level
	}
	return t.fallback
}

// Set changes levels by a specification: items parted by commas, each a level for
// all packages without their own ("debug"), or package=level ("dht=debug").
// The level is debug, info, warn or error, with an optional offset ("info+2");
// "dht=default" takes away what dht had. Either the whole specification is applied
// or, with an error that quotes the bad item, nothing is.
func (l *Levels) Set(spec string) error {
	if len(spec) > maxSpec {
		return fmt.Errorf("set log levels: specification has %d bytes, the limit is %d", len(spec), maxSpec)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.table.Load()
	next := &levelTable{fallback: old.fallback, byPkg: maps.Clone(old.byPkg)}
	for item := range strings.SplitSeq(spec, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if err := next.apply(item); err != nil {
			return fmt.Errorf("set log levels: %w", err)
		}
	}
	if len(next.byPkg) > maxLevels {
		return fmt.Errorf("set log levels: more than %d packages", maxLevels)
	}
	l.table.Store(next)
	return nil
}

// String returns the specification that [Levels.Set] would need to get here,
// packages in alphabetical order.
func (l *Levels) String() string {
	t := l.table.Load()
	items := []string{levelName(t.fallback)}
	for _, pkg := range slices.Sorted(maps.Keys(t.byPkg)) {
		items = append(items, pkg+"="+levelName(t.byPkg[pkg]))
	}
	return strings.Join(items, ",")
}

func (t *levelTable) apply(item string) error {
	pkg, name, found := strings.Cut(item, "=")
	if !found {
		level, err := parseLevel(item)
		if err == nil {
			t.fallback = level
		}
		return err
	}
	if !validPkg(pkg) {
		return fmt.Errorf("%q is no package name; write %s", pkg, specExample)
	}
	if name == levelUnset {
		delete(t.byPkg, pkg)
		return nil
	}
	level, err := parseLevel(name)
	if err == nil {
		t.byPkg[pkg] = level
	}
	return err
}

func parseLevel(name string) (slog.Level, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(name)); err != nil {
		return 0, fmt.Errorf("%q is no level (debug, info, warn, error); write %s", name, specExample)
	}
	return level, nil
}

func levelName(level slog.Level) string { return strings.ToLower(level.String()) }

func validPkg(pkg string) bool {
	if pkg == "" || len(pkg) > maxPkgName {
		return false
	}
	for _, c := range []byte(pkg) {
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '/', c == '_', c == '-':
		default:
			return false
		}
	}
	return true
}
