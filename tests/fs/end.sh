# What is open when the mount ends, in every tree: the kernel sends no release of it, and yet nothing is left in memory.  The
# exit status tells, of a daemon with AddressSanitizer (make asan).
. "$(dirname "$0")/lib.sh"

mount_here() { # OPTIONS...
	"$promptfs" mount -f ${MOUNT_WITH:-} --model "$model" --store "$store" --cache "$cache" --log-file "$log" "$@" "$mnt" 2>"$top/words" &
	daemon=$!
	eventually 20 test -e "$status/pid"
}
# Open files and folders, and one that waits for its picture.
hold() {
	exec 5<"$images/a.png" 6<"$status/queue" 7<"$status/info/a.json" 8<"$prompts/a.txt"
	exec 10<"$mnt" 11<"$prompts" 12<"$images" 13<"$status" 14<"$status/info"
	cat "$images/slow.png" >/dev/null 2>"$top/said" &
	reader=$!
	eventually 20 grep -q slow "$status/queue"
}
let_go() {
	exec 5<&- 6<&- 7<&- 8<&- 10<&- 11<&- 12<&- 13<&- 14<&-
}
ends() { # NAME: with 0, without words, and unmounted
	wait $daemon
	is "$1: ends with 0" "$?$(head -c 2000 "$top/words" | grep -v '^$')" 0
	check "$1: and has unmounted" bash -c '! mountpoint -q "$0"' "$mnt"
}

check "mounts" mount_here
echo "a fox" >"$prompts/a.txt"
printf 'slow\nSteps: 500' >"$prompts/slow.txt"
cat "$images/a.png" >"$top/a.png"
check "files and folders are open" hold
kill -TERM $daemon
ends "a signal"
wait $reader
check "the open that waited was answered" test -s "$top/said"
refuses "what was open cannot be read" "not connected" cat <&6
let_go

check "mounts again" mount_here
check "the same are open" hold
check "and unmounted lazily" "$promptfs" unmount --lazy "$mnt"
kill $reader
let_go
ends "the last one closed"

check "once more" mount_here
for n in $(seq 200); do cat "$status/metrics" >/dev/null & done 2>/dev/null
"$promptfs" unmount "$mnt" 2>/dev/null || umount -l "$mnt"
ends "while many read"
exit $((failures != 0))
