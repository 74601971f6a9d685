//go:build race

package kad

// raceEnabled makes tests smaller, since the detector makes them slower.
const raceEnabled = true
