package proxy

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// readAll gives the ids in a stream, negative for values that are gone.
func readAll(in string) (ids []int64, err error) {
	l := newLineReader(strings.NewReader(in))
	for {
		e, err := l.next()
		if err != nil {
			return ids, err
		}
		id := int64(e.Value.ID)
		if e.Expired {
			id = -id
		}
		ids = append(ids, id)
	}
}

func TestLineReader(t *testing.T) {
	long := `{"id":"9","x":"` + strings.Repeat("a", MaxLine) + "\"}\n"
	for name, test := range map[string]struct {
		in, ids string
		err     error
	}{
		"values":       {"{\"id\":\"1\"}\n{\"id\":\"2\"}\n", "[1 2]", io.EOF},
		"expired":      {"{\"id\":\"1\"}\n{\"expired\":true,\"id\":\"1\"}\n", "[1 -1]", io.EOF},
		"no line feed": {"{\"id\":\"1\"}\r\n{\"id\":\"2\"}", "[1 2]", io.EOF},
		"empty object": {"{\"id\":\"1\"}\n{}\n{\"id\":\"2\"}\n", "[1]", io.EOF},
		"rubbish":      {"\n\nnope\n[]\n{\"id\":\"0\"}\n{\"id\":\"2\"}\n", "[2]", io.EOF},
		"too long":     {"{\"id\":\"1\"}\n" + long + "{\"id\":\"2\"}\n", "[1 2]", io.EOF},
		"only rubbish": {strings.Repeat("x\n", maxBadLines+1) + "{\"id\":\"2\"}\n", "[]", errBadStream},
		"nothing":      {"", "[]", io.EOF},
	} {
		ids, err := readAll(test.in)
		if fmt.Sprint(ids) != test.ids || !errors.Is(err, test.err) {
			t.Errorf("%s: %v, %v, want %s, %v", name, ids, err, test.ids, test.err)
		}
	}
}

func FuzzLineReader(f *testing.F) {
	f.Add("{\"id\":\"1\"}\n{\"expired\":true,\"id\":\"1\"}\n{}\n")
	f.Add("x\n" + string(signedLine(f)))
	f.Fuzz(func(t *testing.T, in string) {
		ids, err := readAll(in)
		if len(ids) > strings.Count(in, "\n")+1 {
			t.Fatalf("%d values in %d lines", len(ids), strings.Count(in, "\n")+1)
		}
		if err == nil {
			t.Fatal("no end")
		}
	})
}
