//go:build linux && race

package lab

// raceEnabled: the race detector makes the switch several times slower.
const raceEnabled = true
