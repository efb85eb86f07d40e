#!/bin/sh
# Compile the plugin of onnxruntime with csrc/ort.h and with onnxruntime's own header: the machine code has to be the same. And the
# program in C++ of docs/provider.md.
# Usage, from the repository's root: sh tests/engine/provider.sh FOLDER      FOLDER has onnxruntime_c_api.h of onnxruntime 1.23.
# Needs (Debian): apt-get install g++
set -eu
command -v gcc >/dev/null && command -v g++ >/dev/null || {
    echo "provider.sh: no gcc or no g++; Debian: apt-get install g++" >&2
    exit 1
}
include=${1:-}
grep -qs 'define ORT_API_VERSION 23$' "$include/onnxruntime_c_api.h" || {
    echo "provider.sh: ONNXRUNTIME_INCLUDE has to be the folder with onnxruntime_c_api.h of onnxruntime 1.23 (docs/provider.md says where from)" >&2
    exit 1
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for file in provider provider_node provider_run; do
    for header in ort.h onnxruntime_c_api.h; do
        gcc -std=gnu11 -O2 -fPIC -pthread -Wall -Wextra -Werror "-DONNXRUNTIME_HEADER=<$header>" -Itdcompress/engine/csrc -I"$include" \
            -c "tdcompress/engine/csrc/$file.c" -o "$folder/$file-$header.o"
    done
    cmp "$folder/$file-ort.h.o" "$folder/$file-onnxruntime_c_api.h.o"
done
sed -n '/^```cpp$/,/^```$/p' docs/provider.md | sed '1d;$d' >"$folder/program.cpp"
g++ -std=c++17 -Wall -Wextra -Werror -I"$include" -c "$folder/program.cpp" -o "$folder/program.o"
echo "provider: the same machine code with both headers; the program in C++ compiles"
