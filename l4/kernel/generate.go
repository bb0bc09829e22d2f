package kernel

// The object is committed, so that building needs no clang. make bpf builds it
// anew; without -g in the sources' paths it comes out the same everywhere.
//
//go:generate go tool bpf2go -go-package kernel -output-stem program -target bpfel,bpfeb -cc clang -cflags "-O2 -g -Wall -Wextra -Werror -mcpu=v3" -type key -type flow -type service -type server -type server_counts -type service_counts -type path_counts -type settings -type change -type trouble -type mac program bpf/path.c
