// Package accesslog writes what became of each request to a file.
//
// A [Record] is one request. [Format.Append] makes a line of it, in JSON or in
// the formats that Apache and nginx have made common, and allocates nothing. A
// [Log] takes lines from any number of goroutines and writes them in batches, by
// one goroutine of its own: to add a line is a copy under a lock, never a system
// call. What a disk cannot take in time is dropped and counted.
package accesslog
