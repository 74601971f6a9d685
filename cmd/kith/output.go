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
