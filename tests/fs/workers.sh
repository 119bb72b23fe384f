# Workers that die again and again: pauses that grow, jobs that end with a reason, a mount that answers meanwhile, and a recipe
# that is remembered until it is edited, forgiven, or mounted anew.
. "$(dirname "$0")/lib.sh"
set_delay 1000
mkdir "$top/quick"
echo '{"_class_name": "PromptfsTestCard", "delay_ms": 1}' >"$top/quick/model_index.json"
cat >"$top/config.yaml" <<-Y
	default_model: card
	models:
	  card: { path: $model }
	  quick: { path: $top/quick }
Y
mount_two() {
	timeout 20 "$promptfs" mount --config "$top/config.yaml" --store "$store" --cache "$cache" --log-file "$log" "$mnt"
}
unset OMP_WAIT_POLICY GOMP_SPINCOUNT
check "mounts" mount_two
worker() { pgrep -P "$(server)" | head -n 1; }
is_painting() { grep -q '^running  [1-9]' "$status/queue"; }
now_ms() { echo $(($(date +%s%N) / 1000000)); }
is_new_worker() { [ -n "$(worker)" ] && [ "$(worker)" != "$victim" ]; }
victim= died=$(now_ms)
# How long after the last death the next worker came.
note_pause() {
	eventually 30 is_new_worker || not_ok "another worker" "none came"
	pauses="$pauses $(($(now_ms) - died))"
}
sleeping_worker() { tr '\0' '\n' <"/proc/$(worker)/environ" | grep -x OMP_WAIT_POLICY=PASSIVE; }
kill_in_job() {
	note_pause
	eventually 30 is_painting || not_ok "a job runs" "$(cat "$status/queue")"
	victim=$(worker)
	kill -9 "$victim"
	died=$(now_ms)
	eventually 5 bash -c '! grep -q "^running  [1-9]" "$0"' "$status/queue"
}
pauses=
for n in 1 2; do
	printf "deadly $n\nSteps: 60" >"$prompts/k$n.txt"
	cat "$images/k$n.png" >/dev/null 2>"$top/k$n" & reader=$!
	kill_in_job
	kill_in_job
	wait $reader
	check "after two deaths EIO" grep -q "Input/output error" "$top/k$n"
	check "with the reason" grep -q "killed by signal 9.*twice" "$status/errors/k$n.txt"
done
start=$(now_ms)
ls -lR "$mnt" >/dev/null
printf 'written meanwhile\nModel: quick' >"$prompts/w.txt"
took=$(($(now_ms) - start))
check "the mount answers meanwhile ($took ms)" test $took -lt 4000
cat "$images/w.png" >"$top/w.png" & reader=$!
check "the worker's threads sleep while they wait" eventually 30 sleeping_worker
note_pause
wait $reader
check "the next one waits, and is painted" is_png "$top/w.png"
read -r _ first second third fourth <<<"$pauses"
check "pauses grow: $first, $second, $third, $fourth ms" test "$first" -lt 2000 -a "$second" -ge 1000 -a "$third" -ge 2000 -a "$fourth" -ge 4000
is "restarts are counted" "$(metric promptfs_worker_restarts_total)" 4
kill -9 "$(worker)"
start=$(now_ms)
printf 'after a success\nModel: quick' >"$prompts/w.txt"
cat "$images/w.png" >/dev/null
took=$(($(now_ms) - start))
check "a finished job ends the count: $took ms, not 8 s" test $took -lt 8000

refuses "a poisoned recipe fails at once" "Input/output error" timeout 5 cat "$images/k1.png"
cp "$prompts/k1.txt" "$prompts/copy.txt"
refuses "under another name too" "Input/output error" timeout 5 cat "$images/copy.png"
printf 'deadly no more\nModel: quick' >"$prompts/k1.txt"
check "edited, it is painted" is_png "$images/k1.png"
is "its error is gone" "$(ls "$status/errors" | grep -c k1)" 0
check "unmounts" unmount_fs
check "mounts again" mount_two
cat "$images/k2.png" >/dev/null 2>&1 & reader=$!
check "with a new mount it is tried again" eventually 10 is_painting
kill -9 $reader
wait $reader 2>/dev/null
check "and ends with its reader" eventually 5 is_queue 0

# ---- too large
printf 'a fox\nSize: 8192x64' >"$prompts/wide.txt"
refuses "beyond the limit of sizes" "Invalid argument" cat "$images/wide.png"
check "which is named" grep -q "4096x4096" "$status/errors/wide.txt"
check "unmounts" unmount_fs
done_fs
