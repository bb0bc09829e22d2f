//go:build race

package l7

// raceDetector says that pools drop things at random, to find races.
const raceDetector = true
