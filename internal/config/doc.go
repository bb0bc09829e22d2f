// Package config reads appliance.toml, the one file that describes all nodes of
// an appliance, and judges it.
//
// A file goes through four stages, each of which collects all problems it finds
// instead of stopping at the first:
//
//	syntax.go      text to a tree of plain values, by BurntSushi/toml;
//	positions.go   text to the line and column of every key, which that library
//	               does not tell;
//	decode.go      the tree to the structs of file.go and the engines, by their
//	               toml tags: unknown keys, wrong types, malformed values;
//	validate*.go   what the engines' own Validate methods object to, and what no
//	               engine can see: names, references, addresses used twice,
//	               weights that move nothing.
//
// Parse does that much and touches nothing but the text. Load reads the file
// first and also opens the certificates and password files it names. Both
// return a *File or Problems. File.ForNode then resolves everything that
// depends on which node of the file this is, in the Config types of the
// engines.
//
// To add a key, give the struct that holds it a field with a toml tag and put
// the key into appliance.toml.example; a test compares the two.
package config
