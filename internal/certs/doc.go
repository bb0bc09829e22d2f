// Package certs reads certificates from PEM files and says exactly which file
// is at fault when it cannot. It keeps nothing and watches nothing: whoever
// reloads calls [Load] again.
package certs
