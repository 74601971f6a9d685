//go:build race

package dht

// raceDetector tells that the tests run some ten times slower.
const raceDetector = true
