//go:build race

package kadsim

// raceEnabled makes tests smaller, since the detector makes them slower.
const raceEnabled = true
