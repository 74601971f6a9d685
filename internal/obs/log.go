package obs

import (
	"context"
	"io"
	"log/slog"
)

// Format is the encoding of log lines.
type Format string

// The two formats of [NewLogger].
const (
	FormatText Format = "text" // key=value, for people; the default
	FormatJSON Format = "json" // one JSON object a line, for machines
)

// PackageKey is the attribute that names the package which logs. A logger that
// carries it (logger.With(PackageKey, "dht")) obeys the level of that package.
const PackageKey = "pkg"

// Options configures [NewLogger]. The zero value logs text at level info.
type Options struct {
	// Format is FormatText or FormatJSON; anything else means FormatText.
	Format Format
	// Level is the least level logged by packages without one of their own.
	Level slog.Level
	// Levels gives packages their own least level. Entries beyond 256 and
	// names that [Levels.Set] would refuse are ignored.
	Levels map[string]slog.Level
}

// NewLogger returns a logger that writes to w, and the levels that govern it.
//
// Times are RFC 3339 with milliseconds, in UTC. Attributes whose key or value
// type says that they are secret are masked (see [Secret]), and long strings are
// cut, so a hostile peer cannot fill a disk with one line. The logger is safe for
// concurrent use; it writes each line with a single call to w.Write.
func NewLogger(w io.Writer, o Options) (*slog.Logger, *Levels) {
	// The inner handler must let everything pass: the levels decide.
	opts := &slog.HandlerOptions{Level: slog.Level(-1 << 20), ReplaceAttr: cleanAttr}
	var inner slog.Handler
	if o.Format == FormatJSON {
		inner = slog.NewJSONHandler(w, opts)
	} else {
		inner = slog.NewTextHandler(w, opts)
	}
	levels := newLevels(o)
	levels.root = slog.New(&levelHandler{inner: inner, levels: levels})
	return levels.root, levels
}

// levelHandler asks the levels whether a record of its package is wanted.
type levelHandler struct {
	inner   slog.Handler
	levels  *Levels
	pkg     string // empty: the default level
	grouped bool   // inside a group, where PackageKey is an ordinary key
}

func (h *levelHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.levels.Level(h.pkg)
}

func (h *levelHandler) Handle(ctx context.Context, r slog.Record) error {
	return h.inner.Handle(ctx, r)
}

func (h *levelHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.inner = h.inner.WithAttrs(attrs)
	if !h.grouped {
		for _, a := range attrs {
			if a.Key == PackageKey && a.Value.Kind() == slog.KindString {
				next.pkg = a.Value.String()
			}
		}
	}
	return &next
}

func (h *levelHandler) WithGroup(name string) slog.Handler {
	next := *h
	next.inner = h.inner.WithGroup(name)
	next.grouped = h.grouped || name != ""
	return &next
}
