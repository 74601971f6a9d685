package main

import "testing"

func TestShares(t *testing.T) {
	for text, want := range map[string]float64{
		"5%/min": 0.05, "5%": 0.05, "0.05": 0.05, "0": 0, "100%": 1, "1/min": 1,
		"101%": -1, "-1%": -1, "NaN": -1, "5%/h": -1, "": -1, "%": -1, "5/min%": -1, "Inf": -1,
	} {
		var c churn
		if err := c.UnmarshalText([]byte(text)); (err == nil) != (want >= 0) || err == nil && float64(c) != want {
			t.Errorf("%q: got %v, %v, want %v", text, c, err, want)
		}
	}
}
