package main

import (
	"encoding/json"
	"fmt"
)

// Print writes one result: v as one line of JSON with --json, else the text, which
// ends with a newline of its own.
func (a *App) Print(v any, text string) error {
	out := []byte(text)
	if a.JSON {
		var err error
		if out, err = json.Marshal(v); err != nil {
			return fmt.Errorf("encode the result: %w", err)
		}
		out = append(out, '\n')
	}
	if _, err := a.Stdout.Write(out); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// Note tells a person something that is no result, on stderr. Scripts do not get
// it: with --json nothing is printed.
func (a *App) Note(format string, args ...any) {
	if !a.JSON {
		// Nothing depends on a note, and there is nowhere to report its failure.
		_, _ = fmt.Fprintf(a.Stderr, format+"\n", args...)
	}
}

// count says how many there are of a thing, whose plural ends in s.
func count[N int | int64](n N, thing string) string {
	if n == 1 {
		return fmt.Sprintf("1 %s", thing)
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
