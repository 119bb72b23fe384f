# A daemon in a process namespace of its own, as in a container, and readers outside: it cannot look them up, so they count as
# dying as soon as they are interrupted; what they read is right.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ] || ! unshare -mpf true 2>/dev/null; then
	echo "skip - container: needs root"
	exit 0
fi
set_delay 1000
# the mount point is shared with the outside, nothing else is
mkdir "$top/outside"
mount --bind "$top/outside" "$top/outside" && mount --make-shared "$top/outside" || { echo "skip - container: no bind mounts"; exit 0; }
mnt=$top/outside/mnt prompts=$top/outside/mnt/prompts images=$top/outside/mnt/images status=$top/outside/mnt/status
mkdir "$mnt"
cleanup_outside() {
	kill -9 $holder 2>/dev/null
	umount -l "$mnt" 2>/dev/null
	umount -l "$top/outside" 2>/dev/null
	cleanup
}
trap cleanup_outside EXIT
export promptfs model store cache log mnt
unshare -mpf --propagation unchanged --kill-child bash -c '
	mount -t proc proc /proc && exec "$promptfs" mount -f --sandbox --model "$model" --store "$store" --cache "$cache" \
		--log debug --log-file "$log" "$mnt"' &
holder=$!
check "a daemon inside mounts outside" eventually 10 test -e "$status/pid"
is "it is process 1 there" "$(cat "$status/pid")" 1
printf 'a fox\nSteps: 1' >"$prompts/a.txt"
check "a picture" is_png "$images/a.png"

printf 'slow\nSteps: 60' >"$prompts/s.txt"
cat "$images/s.png" >/dev/null 2>"$top/said" &
reader=$!
check "a reader waits" eventually 10 grep -q '^running' "$status/queue"
start=$(date +%s%N)
kill -TERM $reader
wait $reader 2>/dev/null
took=$((($(date +%s%N) - start) / 1000000))
check "a signal ends its wait ($took ms)" test $took -lt 3000
check "and the job" eventually 10 is_queue 0
cat "$images/s.png" >/dev/null 2>&1 &
reader=$!
check "another waits" eventually 10 is_queue 1
kill -9 $reader
wait $reader 2>/dev/null
check "kill -9 too" eventually 10 is_queue 0
check "the mount answers" is_png "$images/a.png"
check "it ends with the container" bash -c 'kill -TERM '$holder'; pkill -TERM -P '$holder'; for n in $(seq 100); do mountpoint -q "$0" || exit 0; sleep 0.1; done; exit 1' "$mnt"
exit $((failures != 0))
