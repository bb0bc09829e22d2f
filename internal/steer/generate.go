package steer

//go:generate go tool bpf2go -cc clang -cflags "-O2 -g -Wall -Werror" -no-global-types steer bpf/steer.c
