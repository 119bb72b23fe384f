# Two mounts on one store are refused; two on one cache, with pictures in common, are right: each is made once or twice, never
# wrong, and both go on when one of them is killed.
. "$(dirname "$0")/lib.sh"
other=$top/other
mkdir "$other"
mount_other() {
	timeout 20 "$promptfs" mount --model "$model" --store "$top/store2" --cache "$cache" --log-file "$top/log2" "$@" "$other"
}
check "mounts" mount_fs
refuses "a second mount on the store" "is served by another promptfs \(process $(server)\).*--store" \
	"$promptfs" mount --model "$model" --store "$store" --cache "$top/cache2" "$other"
is "in one line" "$(wc -l <"$top/said")" 1
check "which is not touched" test -e "$prompts"
ln -s "$store" "$top/alias"
refuses "nor by another name of it" "is served by another promptfs" \
	"$promptfs" mount --model "$model" --store "$top/alias" --cache "$top/cache2" "$other"
check "a second mount on the cache" mount_other
trap 'umount -l "$other" 2>/dev/null || fusermount3 -uzq "$other"; cleanup' EXIT
servers() { cat "$status/pid" "$other/status/pid" 2>/dev/null; }
is "is another daemon" "$(servers | sort -u | wc -l)" 2

made_by() { awk '/^promptfs_generations_total.*"ok"/ { n += $2 } END { print n + 0 }' "$1/status/metrics"; }
for n in $(seq 12); do
	printf 'shared %s\nSize: 64x64, Steps: 2' "$n" | tee "$prompts/p$n.txt" >"$other/prompts/p$n.txt"
done
pids=()
for n in $(seq 12) $(seq 12); do
	cat "$images/p$n.png" >"$top/a$n.png" & pids+=($!)
	cat "$other/images/p$n.png" >"$top/b$n.png" & pids+=($!)
done
failed=0
for p in "${pids[@]}"; do wait "$p" || failed=$((failed + 1)); done
is "48 readers of 12 pictures through both at once" "$failed" 0
different=0
for n in $(seq 12); do
	is_png "$top/a$n.png" 64x64 && cmp -s "$top/a$n.png" "$top/b$n.png" || different=$((different + 1))
done
is "whole, the same through both" "$different" 0
total=$(($(made_by "$mnt") + $(made_by "$other")))
check "made once or twice each ($total generations)" test "$total" -ge 12 -a "$total" -le 24
is "12 results in the cache" "$("$promptfs" cache --cache "$cache" ls | grep -cE '^[0-9a-f]{32}')" 12

printf 'made here\nSize: 64x64, Steps: 2' | tee "$prompts/q.txt" >"$other/prompts/q.txt"
cat "$images/q.png" >"$top/q.png"
before=$(made_by "$other")
check "what one made the other has" cmp "$other/images/q.png" "$top/q.png"
is "without making it" "$(made_by "$other")" "$before"
check "a command beside them uses it too" "$promptfs" export --store "$store" --cache "$cache" --model "$model" "$images/q.png" -o "$top/exported"

"$promptfs" cache --cache "$cache" rm $("$promptfs" cache --cache "$cache" ls | grep -oE '^[0-9a-f]{32}') >/dev/null 2>&1
check "removed under both: made again" is_png "$other/images/p1.png" 64x64
check "the same" cmp "$images/p1.png" "$top/a1.png"

pids=()
for n in $(seq 20); do
	printf 'killed %s\nSize: 64x64, Steps: 2' "$n" | tee "$prompts/k$n.txt" >"$other/prompts/k$n.txt"
	cat "$images/k$n.png" >"$top/k$n.png" 2>/dev/null & pids+=($!)
	cat "$other/images/k$n.png" >/dev/null 2>&1 &
done
sleep 0.1
kill -9 "$(cat "$other/status/pid")"
failed=0
for p in "${pids[@]}"; do wait "$p" || failed=$((failed + 1)); done
wait
is "one is killed: the other serves on" "$failed" 0
check "every cached picture is whole" "$promptfs" cache --cache "$cache" verify
check "the killed one comes back" mount_other
different=0
for n in $(seq 20); do cmp -s "$other/images/k$n.png" "$top/k$n.png" || different=$((different + 1)); done
is "with the same pictures" "$different" 0
check "unmounts the second" "$promptfs" unmount "$other"
done_fs
