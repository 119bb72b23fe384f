# lib.sh: what the filesystem cases share.  Each script is run as `bash tests/fs/NAME.sh PROMPTFS_BINARY`; it has a mount, a
# store, a cache and a model of its own below a temporary folder, all gone at its end.
#
#     . "$(dirname "$0")/lib.sh"
#     mount_fs
#     echo "a fox" >"$prompts/a.txt"
#     is "size" "$(stat -c %s "$images/a.png")" 197368
#     done_fs

promptfs=${1:-./promptfs}
script=$0
failures=0

if ! { : <>/dev/fuse; } 2>/dev/null; then
	echo "skip - fs: no /dev/fuse"
	exit 0
fi
[ -x "$promptfs" ] || { echo "not ok - fs: $promptfs is no program; run make first"; exit 1; }

top=$(mktemp -d)
mnt=$top/mnt store=$top/store cache=$top/cache model=$top/card log=$top/log
prompts=$mnt/prompts images=$mnt/images status=$mnt/status
mkdir "$mnt" "$model"
# nothing of the user's own counts
export XDG_CONFIG_HOME=$top/config XDG_DATA_HOME=$top/data XDG_CACHE_HOME=$top/xdg-cache
unset ${!PROMPTFS_*}

# The weightless model: a picture in steps x MS milliseconds.  A running daemon is told that its model changed.
set_delay() { # MS
	echo "{\"_class_name\": \"PromptfsTestCard\", \"delay_ms\": $1}" >"$model/model_index.json"
	if mountpoint -q "$mnt"; then { echo reload >"$status/control"; } 2>/dev/null; fi
}
set_delay 20

cleanup() {
	cd /
	if [ -n "${KEEP:-}" ]; then
		echo "# kept: $top"
		return
	fi
	mountpoint -q "$mnt" 2>/dev/null && "$promptfs" unmount --lazy "$mnt" 2>/dev/null
	umount -l "$mnt" 2>/dev/null || fusermount3 -uzq "$mnt" 2>/dev/null
	[ -f "$store/lock" ] && kill "$(cat "$store/lock")" 2>/dev/null
	rm -rf --one-file-system "$top"
}
trap cleanup EXIT

mount_fs() { # OPTIONS...
	timeout 20 "$promptfs" mount ${MOUNT_WITH:-} --model "$model" --store "$store" --cache "$cache" --log debug --log-file "$log" "$@" "$mnt"
}
unmount_fs() {
	timeout 30 "$promptfs" unmount "$mnt"
}
server() {
	cat "$status/pid"
}

ok() { # NAME
	echo "ok - $1"
}
not_ok() { # NAME WHY
	echo "not ok - $1: $2"
	echo "    again: KEEP=1 bash $script $promptfs"
	failures=$((failures + 1))
}
is() { # NAME GOT WANTED
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "got '$2', wanted '$3'"; fi
}
check() { # NAME COMMAND...
	local name=$1
	shift
	if "$@" >/dev/null 2>"$top/stderr"; then ok "$name"; else not_ok "$name" "failed: $* ($(head -c 300 "$top/stderr" | tr '\n' ' '))"; fi
}
refuses() { # NAME MESSAGE COMMAND...: fails, and says MESSAGE (a pattern of grep -E); $top/said keeps what it said
	local name=$1 message=$2
	shift 2
	if "$@" >/dev/null 2>"$top/said"; then
		not_ok "$name" "succeeded: $*"
	elif grep -qE "$message" "$top/said"; then
		ok "$name"
	else
		not_ok "$name" "said '$(head -c 300 "$top/said" | tr '\n' ' ')', wanted '$message'"
	fi
}
eventually() { # SECONDS COMMAND...
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -ge $end ] && return 1
		sleep 0.02
	done
}

# The sum of a metric over the labels that match.
metric() { # NAME [LABELS]
	awk -v name="$1" -v labels="${2:-}" '
		{ head = $1; sub(/\{.*/, "", head) }
		head == name && index($1, labels) { sum += $2 }
		END { print sum + 0 }' "$status/metrics"
}
generated() {
	metric promptfs_generations_total 'result="ok"'
}
queued() { # lines of status/queue without its head
	tail -n +2 "$status/queue" | wc -l
}
is_queue() { # COUNT
	[ "$(queued)" = "$1" ]
}
hex() { # FILE OFFSET COUNT
	od -An -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'
}
# A whole PNG: its beginning, its end, and where python3 is there, everything between.
is_png() { # FILE [WIDTHxHEIGHT]
	local size
	size=$(wc -c <"$1")
	[ "$(hex "$1" 0 8)" = 89504e470d0a1a0a ] || return 1
	[ "$(hex "$1" $((size - 12)) 12)" = 0000000049454e44ae426082 ] || return 1
	[ -z "${2:-}" ] || [ "$((16#$(hex "$1" 16 4)))x$((16#$(hex "$1" 20 4)))" = "$2" ] || return 1
	command -v python3 >/dev/null || return 0
	python3 - "$1" <<-'PY'
		import struct, sys, zlib
		d = open(sys.argv[1], 'rb').read()
		at, pixels = 8, b''
		while at < len(d):
		    n, kind = struct.unpack('>I4s', d[at:at + 8])
		    body = d[at + 8:at + 8 + n]
		    assert zlib.crc32(kind + body) == struct.unpack('>I', d[at + 8 + n:at + 12 + n])[0], kind
		    if kind == b'IHDR':
		        width, height = struct.unpack('>II', body[:8])
		    if kind == b'IDAT':
		        pixels += body
		    at += 12 + n
		assert at == len(d) and len(zlib.decompress(pixels)) == height * (1 + 3 * width)
	PY
}
done_fs() {
	mountpoint -q "$mnt" && check "unmounts" unmount_fs
	exit $((failures != 0))
}
