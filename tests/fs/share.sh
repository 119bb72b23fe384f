# Readers that wait together, signals that end a wait and those that do not, and prompts that never wait.
. "$(dirname "$0")/lib.sh"
set_delay 500
check "mounts" mount_fs
cancelled() { metric promptfs_generations_total 'result="cancelled"'; }

# ---- one job for all
echo "a crowd" >"$prompts/a.txt"
cp "$prompts/a.txt" "$prompts/twin.txt"
pids=()
for n in $(seq 100); do
	cksum <"$images/a.png" >"$top/sum.$n" & pids+=($!)
	cksum <"$images/twin.png" >"$top/sum.t$n" & pids+=($!)
done
check "the queue shows the wait" eventually 5 grep -q 'running .* \(a\|twin\).png$' "$status/queue"
check "info says running" eventually 5 grep -q '"state": "running"' "$status/info/a.json"
failed=0
for p in "${pids[@]}"; do wait "$p" || failed=$((failed + 1)); done
is "200 readers of one recipe succeed" "$failed" 0
is "with the same bytes" "$(cat "$top"/sum.[0-9]* | sort -u | wc -l)$(cat "$top"/sum.t* | sort -u | wc -l)" 11
is "from one generation" "$(generated)" 1
is "the queue is empty again" "$(queued)" 0

# ---- signals
open_in_bash() { # FILE: opens it in a shell that catches harmless signals; prints how that went
	bash -c 'trap ":" WINCH CHLD URG CONT; if exec 3<"$0"; then echo opened; else echo failed; fi' "$1"
}
echo "killed" >"$prompts/k.txt"
cat "$images/k.png" >/dev/null &
reader=$!
check "a reader waits" eventually 5 is_queue 1
start=$(date +%s%N)
kill -9 $reader
wait $reader 2>/dev/null
took=$((($(date +%s%N) - start) / 1000000))
check "kill -9 ends its wait at once ($took ms)" test $took -lt 400
check "and cancels the job" eventually 3 is_queue 0
is "nothing was generated" "$(generated)" 1
is_cancelled() { [ "$(cancelled)" = "$1" ]; }
check "one cancelled" eventually 3 is_cancelled 1

cat "$images/k.png" >/dev/null & one=$!
cat "$images/k.png" >"$top/k.png" & two=$!
check "two wait" eventually 5 grep -q ' 2  k.png$' "$status/queue"
kill -9 $one
check "the other reader still gets it" wait $two
check "whole" is_png "$top/k.png"
is "the job was not cancelled" "$(cancelled)" 1

echo "resized" >"$prompts/w.txt"
open_in_bash "$images/w.png" >"$top/w" &
reader=$!
check "a shell waits" eventually 5 is_queue 1
shell=$(pgrep -P $reader | head -1)
for signal in WINCH CHLD URG CONT WINCH; do
	kill -$signal "${shell:-$reader}"
	sleep 0.06
done
wait $reader
is "harmless signals end no wait" "$(cat "$top/w")" opened
is "nor cancel" "$(cancelled)" 1

echo "stopped" >"$prompts/s.txt"
cat "$images/s.png" >"$top/s.png" &
reader=$!
check "a third waits" eventually 5 is_queue 1
kill -STOP $reader; sleep 0.1; kill -CONT $reader
check "stop and go on" wait $reader
check "is whole" is_png "$top/s.png"
echo "stopped and killed" >"$prompts/sk.txt"
cat "$images/sk.png" >/dev/null &
reader=$!
check "a fourth waits" eventually 5 is_queue 1
kill -STOP $reader; sleep 0.1; kill -9 $reader
check "the second signal counts" eventually 1 is_queue 0
wait $reader 2>/dev/null
timeout -s INT 0.3 cat "$images/sk.png" >/dev/null 2>&1
check "SIGINT ends a wait" eventually 1 is_queue 0

# a deleted prompt detaches only its own name
echo "deleted under its reader" >"$prompts/x.txt"
cp "$prompts/x.txt" "$prompts/y.txt"
cat "$images/x.png" >/dev/null 2>&1 & one=$!
cat "$images/y.png" >"$top/y.png" & two=$!
check "both wait" eventually 5 grep -q '[xy].png$' "$status/queue"
rm "$prompts/x.txt"
check "the other name gets its picture" wait $two
check "whole, from one job" is_png "$top/y.png"
wait $one
is "the deleted one's image is gone" "$(ls "$images" | grep -c '^x')" 0

# ---- nothing else waits
set_delay 1500
echo "slow" >"$prompts/slow.txt"
cat "$images/slow.png" >/dev/null &
reader=$!
check "a slow one runs" eventually 5 is_queue 1
start=$(date +%s%N)
for n in $(seq 100); do echo "prompt $n" >"$prompts/n$n.txt" && mv "$prompts/n$n.txt" "$prompts/m$n.txt" && cat "$prompts/m$n.txt"; done >/dev/null
ls -l "$prompts" "$images" >/dev/null
cat "$status/queue" "$status/info/slow.json" "$status/metrics" >/dev/null
took=$((($(date +%s%N) - start) / 1000000))
check "100 prompts edited and listed meanwhile ($took ms)" is_queue 1
is "100 images" "$(ls "$images" | grep -c '^m')" 100
echo "slow no more" >"$prompts/slow.txt"
check "the edit shows while the old one is made" test "$(ls "$images" | grep -c slow)" = 1
kill -9 $reader
check "and it ends" eventually 5 is_queue 0
wait $reader 2>/dev/null

# ---- unmounting with a reader
echo "last" >"$prompts/last.txt"
bash -c 'cat "$0" >/dev/null' "$images/last.png" 2>"$top/last" &
reader=$!
check "the last waits" eventually 5 is_queue 1
refuses "busy" "busy" unmount_fs
pid=$(server)
kill -TERM "$pid"
check "SIGTERM ends the daemon" eventually 10 bash -c '! kill -0 "$0" 2>/dev/null' "$pid"
wait $reader
check "the reader is told" grep -qE "canceled|cancelled|abort|not connected" "$top/last"
check "nothing is mounted any more" bash -c '! mountpoint -q "$0"' "$mnt"
done_fs
