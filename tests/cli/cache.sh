#!/usr/bin/env bash
# promptfs cache: every verb, shortened keys, damage.
. "$(dirname "$0")/lib.sh"
card card
export PROMPTFS_MODEL=$work/card

for p in one two three; do
	"$program" generate -o $p.png "$p" || exit 1
	sleep 0.02 # later ones are used later
done
run cache stat
check "stat" has "$out" "objects  3"
run cache ls
check "ls: last used first" is "$(echo "$out" | awk '{print $NF}' | tr '\n' ' ')" "three two one "
check "ls: keys" is "$(echo "$out" | grep -c '^[0-9a-f]\{32\} ')" 3
key=$(echo "$out" | awk '$NF == "two" {print $1}')
oldest=$(echo "$out" | awk '$NF == "one" {print $1}')
run cache pin "${oldest:0:10}"
check "pin by the first digits" is "$status$out$err" 0
run cache ls
check "ls: pinned" has "$out" "pinned one"
fails "a pinned one is not removed" 1 "pinned" cache rm "$oldest"
run cache rm "$key"
check "rm" is "$status $("$program" cache ls | awk '{print $NF}' | tr '\n' ' ')" "0 three one "
fails "rm twice" 1 "no such result" cache rm "$key"
fails "no key" 1 "at least 4" cache rm ab
fails "rm of nothing" 2 "needs a key" cache rm
run cache gc 0
check "gc leaves what is pinned" is "$status $out" "0 1 removed"
run cache unpin "$oldest"
run cache gc 1B
check "gc with a size" is "$status $out" "0 1 removed"
fails "gc of no size" 2 "no size" cache gc lots
run generate -o one.png one
object=$(find .cache/promptfs/objects -type f ! -name '*.txt')
check "the object is the bare picture" is "$(head -c 4 "$object" | tail -c 3)" PNG
check "what it is stands beside it" has "$(cat "$object.txt")" "prompt: 3:one"
run cache verify
check "verify: whole" is "$status $out" "0 1 checked, 0 damaged"
printf X | dd of="$object" bs=1 seek=40 conv=notrunc status=none
run cache verify
check "verify: damaged" is "$status $out" "1 1 checked, 1 damaged"
run generate -o again.png one
check "it is made again, the same" cmp -s one.png again.png
object=$(find .cache/promptfs/objects -type f ! -name '*.txt')
printf X | dd of="$object" bs=1 seek=40 conv=notrunc status=none
run generate -o again.png one
check "damage is never served" cmp -s one.png again.png
echo 2 >.cache/promptfs/format
fails "a newer format" 1 "newer promptfs" cache stat
fails "no verb" 2 "say what" cache
fails "unknown verb" 2 "'nope' is none of" cache nope
fails "a word too many" 2 "one word too many" cache stat x
finish
