#!/usr/bin/env bash
# promptfs convert: weights in other precisions, and pictures from them.
. "$(dirname "$0")/lib.sh"
golden=$root/tests/golden
model=$golden/models/zimage-tiny
paint() { # FILE [OPTION...]
	"$program" generate --model "$model" --device cpu --dtype f32 --width 64 --height 64 --steps 2 "${@:2}" -o "$1" a
}
picture() { # FILE: without what says how it was made
	python3 - "$1" <<'PY'
import struct, sys
data, at = open(sys.argv[1], "rb").read(), 8
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind == b"IDAT":
        sys.stdout.write(data[at + 8:at + 8 + n].hex())
    at += n + 12
PY
}

for type in f32 bf16 fp8; do
	run convert --type $type "$model/transformer" $type.safetensors
	check "$type: written" is "$status$err" 0
	paint $type.png --set transformer_file=$type.safetensors
	check "$type: painted" test -s $type.png
done
for type in q8_0 q4_0 q4_k; do
	run convert --type $type "$model/transformer" $type.gguf
	check "$type: written" is "$status$err" 0
	paint $type.png --set transformer_file=$type.gguf
	check "$type: painted" test -s $type.png
done
paint own.png
check "nothing is lost in f32" is "$(picture own.png | md5sum)" "$(picture f32.png | md5sum)"
check "nothing is lost in bf16, which the model has" is "$(picture own.png | md5sum)" "$(picture bf16.png | md5sum)"
check "fewer bits, another picture" test "$(picture own.png | md5sum)" != "$(picture q4_0.png | md5sum)"
check "8 bits are smaller" test "$(stat -c %s q8_0.gguf)" -lt "$(stat -c %s bf16.safetensors)"
check "4 bits are smaller still" test "$(stat -c %s q4_0.gguf)" -lt "$(stat -c %s q8_0.gguf)"
run convert --type bf16 q8_0.gguf again.safetensors
check "GGUF is a source too" is "$status$err" 0
check "nothing else is left" is "$(find . -name '*.tmp')" ""
fails "no such file" 1 "nope.safetensors" convert nope.safetensors out.safetensors
fails "onto itself" 1 "cannot replace its source" convert q8_0.gguf q8_0.gguf --type q8_0
fails "no such type" 2 "q4_k" convert a.safetensors b.safetensors --type q3
fails "a name of the other format" 2 "ends in .gguf" convert a.safetensors b.safetensors --type q8_0
fails "one file" 2 "to what file" convert a.safetensors
finish
