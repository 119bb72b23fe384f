#!/usr/bin/env bash
# promptfs export: pictures and folders of them, without padding.
. "$(dirname "$0")/lib.sh"
card card
export PROMPTFS_MODEL=$work/card
mkdir -p images/sub images/.hidden
"$program" generate -o images/a.png a && "$program" generate -o images/sub/b.png b || exit 1
echo note >images/note.txt

run export images/a.png -o out
check "one picture" is "$status$err $(ls out)" "0 a.png"
check "it is smaller" test "$(stat -c %s out/a.png)" -lt "$(stat -c %s images/a.png)"
check "it has no padding" is "$(grep -c paDd out/a.png)" 0
check "it keeps its texts" is "$(grep -ac 'Sampler: euler' out/a.png)" 1
run export images/ -o all
check "a folder: pictures only" is "$status $(cd all && find . -type f | sort | tr '\n' ' ')" "0 ./a.png ./sub/b.png "
check "the same file either way" cmp -s out/a.png all/a.png
run export out/a.png -o twice
check "exported twice: nothing more to take away" cmp -s out/a.png twice/a.png
chunks() { # FILE: every chunk but the padding
	python3 - "$1" <<'PY'
import struct, sys, zlib
data, at = open(sys.argv[1], "rb").read(), 8
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    body, crc = data[at + 8:at + 8 + n], struct.unpack(">I", data[at + 8 + n:at + 12 + n])[0]
    if kind != b"paDd":
        print(kind, body.hex(), zlib.crc32(kind + body) == crc)
    at += n + 12
PY
}
check "every other chunk is the same" is "$(chunks images/a.png)" "$(chunks out/a.png)"
check "and its checksum right" is "$(chunks out/a.png | grep -c 'True$') $(chunks out/a.png | grep -c 'False$')" "6 0"
fails "a missing picture" 1 "nope.png" export nope.png -o out
cp images/note.txt images/fake.png
fails "what is no PNG" 1 "images/fake.png: no PNG" export images/fake.png -o out
head -c 100 images/a.png >images/cut.png
fails "a picture that is cut off" 1 "images/cut.png: cut off" export images/cut.png -o out
check "no file of either" is "$(ls out)" a.png
fails "no place" 2 "-o DIR" export images/a.png
fails "nothing to export" 2 "say which" export -o out
finish
