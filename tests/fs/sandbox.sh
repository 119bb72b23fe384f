# What a worker may not do, and with --sandbox the daemon either: everything of a mount works, nothing else does.
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
confined() { # PID: the lines of /proc that tell
	awk '/^(NoNewPrivs|CapBnd)/ { print $2 }' "/proc/$1/status" | tr '\n' ' '
}
check "mounts" mount_fs
echo "a fox" >"$prompts/a.txt"
check "a picture" is_png "$images/a.png"
worker=$(pgrep -P "$(server)" | head -n 1)
is "the worker can gain no rights" "$(awk '/NoNewPrivs/ { print $2 }' "/proc/$worker/status")" 1
is "the daemon could" "$(awk '/NoNewPrivs/ { print $2 }' "/proc/$(server)/status")" 0
check "unmounts" unmount_fs

# ---- the daemon
mkdir "$top/other" "$top/links" "$top/blobs"
mv "$model/model_index.json" "$top/blobs/one" && ln -s "$top/blobs/one" "$model/model_index.json"
check "mounts with --sandbox" mount_fs --sandbox
worker() { pgrep -P "$(server)" | head -n 1; }
is "nobody's child but the worker's" "$(pgrep -c -P "$(server)")" 0
check "the cached picture" is_png "$images/a.png"
is "is from the cache" "$(generated)" 0
echo "a hen" >"$prompts/b.txt"
check "a new picture, of a model that is a link elsewhere" is_png "$images/b.png"
is "the daemon can gain no rights" "$(confined "$(server)" | cut -d" " -f2)" 1
is "nor can its worker" "$(confined "$(worker)" | cut -d" " -f2)" 1
[ "$(id -u)" != 0 ] || is "without root's powers over the system" "$(confined "$(server)" | cut -d' ' -f1)" 000000000800001f
mkdir "$prompts/d" "$prompts/e"
check "moved between folders" mv "$prompts/b.txt" "$prompts/d/b.txt"
check "linked" ln "$prompts/d/b.txt" "$prompts/e/c.txt"
check "cut, times, a fifo" bash -c 'truncate -s 3 "$0/d/b.txt" && touch -d 2020-01-01 "$0/d/b.txt" && mkfifo "$0/f" && rm "$0/f"' "$prompts"
check "export" "$promptfs" export --store "$store" --cache "$cache" --model "$model" "$images/a.png" -o "$top/out"
kill -9 "$(worker)"
echo "another worker" >"$prompts/w.txt"
check "another worker is started" is_png "$images/w.png"
set_delay 1
check "reload" bash -c 'echo reload >"$0"' "$status/control"
echo "after a reload" >"$prompts/r.txt"
check "a picture after it" is_png "$images/r.png"
is "$(pgrep -c -P "$(server)") worker" "$(pgrep -c -P "$(server)")" 1
check "busy is told" bash -c 'exec 3<"$0/a.txt"; ! "$1" unmount "$2" 2>/dev/null' "$prompts" "$promptfs" "$mnt"
check "unmounts" unmount_fs

# ---- however it ends, the mount is gone
gone() { ! mountpoint -q "$mnt"; }
for signal in TERM INT KILL; do
	check "mounts" mount_fs --sandbox
	pid=$(server)
	(cd "$mnt" && exec sleep 100) &
	inside=$!
	kill -$signal "$pid"
	check "after SIG$signal nothing is mounted" eventually 10 gone
	kill $inside
done
check "and is mounted again at once, ten times" bash -c '
	for n in $(seq 10); do
		"$@" && kill -9 "$(cat "${@: -1}/status/pid")" || exit 1
	done' - "$promptfs" mount --sandbox --model "$model" --store "$store" --cache "$cache" --log-file "$log" "$mnt"
check "the end of it" eventually 10 gone
"$promptfs" mount -f --sandbox --model "$model" --store "$store" --cache "$cache" "$mnt" 2>"$top/foreground" &
front=$!
check "-f too" eventually 5 test -e "$status/pid"
kill -TERM $front
wait $front
is "ends with 0 and has unmounted" "$?$(mountpoint -q "$mnt"; echo $?)" 032

# ---- from within
if command -v gcc >/dev/null && gcc -shared -fPIC -O1 -w -D_GNU_SOURCE -o "$top/probe.so" "$here/../faults/probe.c" -ldl; then
	export HOME=${HOME:-/root} PROBE_STORE=$store PROBE_OTHER=$top/other
	probe() { # OPTIONS...: what a daemon with these can do
		rm -f "$top/other/probed"
		touch "$top/other/file"
		LD_PRELOAD=$top/probe.so mount_fs "$@" || return
		ln -s probe "$prompts/link" && readlink "$prompts/link"
		rm -f "$prompts/link"
		unmount_fs
		umount "$top/other" 2>/dev/null
	}
	is "with --sandbox nothing else is possible" "$(probe --sandbox)" \
		"own=0 shadow=13 home=13 new=13 remove=13 run=13 mount=1 connect=13 kill=1"
	case $(probe) in
	"own=0 "*" run=0 "*" connect=111 "*) ok "without it more is" ;;
	*) not_ok "without it more is" "$(probe)" ;;
	esac
else
	echo "skip - from within: no gcc"
fi
done_fs
