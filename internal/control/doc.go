// Package control is the way into a running appliance: an HTTP and JSON API on
// a unix socket that only the administrator may open, the server that answers
// it and the client that the verbs of applianctl use.
//
// The types of api.go are the format of the wire and of `applianctl status
// --json`. They are stable: fields are added, never renamed or given another
// meaning; docs/status.md describes them for people.
//
// The package knows nothing of the parts of the appliance. Whoever runs it
// hands over a Backend, whose functions carry the commands out.
package control
