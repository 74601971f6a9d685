package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"

	"github.com/kith-im/kith/dht"
)

// maxBadLines is how many lines that are no value a stream may have in a row.
const maxBadLines = 1000

// errBadStream is what a stream of nothing but rubbish ends with.
var errBadStream = errors.New("proxy server sends no values")

// lineReader reads a stream of JSON lines. It holds one line, of at most
// MaxLine bytes; longer ones and those that are no value are passed over, since
// one bad value must not hide the others.
type lineReader struct {
	r   *bufio.Reader
	buf []byte
	bad int // lines in a row
}

func newLineReader(r io.Reader) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, 16<<10)}
}

// next gives the next event; io.EOF when the stream has ended properly, between
// lines or by an empty object.
func (l *lineReader) next() (dht.Event, error) {
	for {
		line, err := l.line()
		if err != nil {
			return dht.Event{}, err
		}
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		f, err := parseFields(line)
		if err == nil && len(f) == 0 {
			return dht.Event{}, io.EOF
		}
		if err == nil {
			var v *dht.Value
			if v, err = f.value(); err == nil && v.ID != 0 {
				l.bad = 0
				return dht.Event{Value: v, Expired: f.bool("expired")}, nil
			}
		}
		if l.bad++; l.bad > maxBadLines {
			return dht.Event{}, errBadStream
		}
	}
}

// line reads one line, empty if it was too long. It is good until the next call.
func (l *lineReader) line() ([]byte, error) {
	l.buf = l.buf[:0]
	tooLong := false
	for {
		part, err := l.r.ReadSlice('\n')
		if !tooLong && len(l.buf)+len(part) > MaxLine {
			tooLong = true
			if l.bad++; l.bad > maxBadLines {
				return nil, errBadStream
			}
		}
		if !tooLong {
			l.buf = append(l.buf, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && len(l.buf) > 0 && !tooLong:
			return l.buf, nil // the last line has no line feed
		case err != nil:
			return nil, err
		case tooLong:
			return nil, nil
		}
		return l.buf, nil
	}
}
