# What goes wrong around a mount: its folder, its store, its daemon killed, its disk full.
. "$(dirname "$0")/lib.sh"
one_line() { [ "$(wc -l <"$top/said")" = 1 ]; }
mount_at() { timeout 20 "$promptfs" mount --model "$model" --store "$store" --cache "$cache" --log-file "$log" "$@"; }

refuses "a missing folder" "missing.*create" mount_at "$top/missing"
check "in one line" one_line
echo x >"$top/file"
refuses "a file" "no folder" mount_at "$top/file"
mkdir "$top/full" && touch "$top/full/x"
refuses "a folder with something in it" "not empty" mount_at "$top/full"
check "in one line" one_line
refuses "no folder" "mount point" mount_at
refuses "an unknown option" "nonsense" mount_at -o nonsense "$mnt"
check "in one line" one_line
mkdir -p "$top/around/store"
refuses "around the store" "inside" "$promptfs" mount --model "$model" --store "$top/around/store" --cache "$cache" -o nonempty "$top/around"
mkdir "$top/new" && echo 999 >"$top/new/format"
refuses "a newer store" "format 999" "$promptfs" mount --model "$model" --store "$top/new" --cache "$cache" "$mnt"
refuses "unmounting nothing" "no promptfs" "$promptfs" unmount "$mnt"
check "mounts" mount_at "$mnt"
refuses "mounted already" "already" mount_at "$mnt"
mkdir "$top/second"
refuses "two daemons, one store" "process $(server)" mount_at "$top/second"
check "in one line" one_line
check "over something, if asked" "$promptfs" mount --model "$model" --store "$top/store2" --cache "$cache" --log-file "$log" -o nonempty "$top/full"
check "unmounts that" "$promptfs" unmount "$top/full"
check "what was there is there" test -f "$top/full/x"

# ---- killed
mkdir "$prompts/d"
for n in $(seq 50); do echo "prompt $n" >"$prompts/d/p$n.txt"; done
cat "$images/d/p1.png" >"$top/p1.png"
(cd "$mnt" && exec sleep 100) &
inside=$!
set_delay 500
cat "$images/d/p2.png" >/dev/null 2>"$top/p2" &
reader=$!
check "a reader waits" eventually 5 is_queue 1
for n in $(seq 51 80); do echo "prompt $n" >"$prompts/d/p$n.txt"; done
kill -9 "$(server)"
wait $reader
check "kill -9: the reader is told" grep -qE "abort|not connected" "$top/p2"
refuses "the mount is dead" "not connected" ls "$mnt"
set_delay 20
check "mounting again clears it away" mount_at "$mnt"
kill $inside
bad=0
for n in $(seq 80); do [ "$(cat "$prompts/d/p$n.txt")" = "prompt $n" ] || bad=$((bad + 1)); done
is "every closed prompt is there" $bad 0
check "the cached picture is whole" cmp "$images/d/p1.png" "$top/p1.png"
is "from the cache" "$(generated)" 0
check "the interrupted one can be had" is_png "$images/d/p2.png"
kill -9 "$(server)"
check "a dead mount can be unmounted" eventually 5 "$promptfs" unmount "$mnt"
check "and is gone" bash -c '! mountpoint -q "$0"' "$mnt"

# ---- in the foreground
# a shell's background processes ignore Ctrl-C
env --default-signal=INT "$promptfs" mount -f --model "$model" --store "$store" --cache "$cache" "$mnt" 2>"$top/foreground" &
front=$!
check "-f mounts too" eventually 5 test -e "$status/pid"
is "in this very process" "$(server)" $front
kill -INT $front
eventually 10 bash -c '! kill -0 "$0" 2>/dev/null' $front || kill $front
wait $front
is "and ends with 0" $? 0
check "unmounted" bash -c '! mountpoint -q "$0"' "$mnt"

# ---- a full disk
if [ "$(id -u)" = 0 ] && mkdir "$top/small" && mount -t tmpfs -o size=256k tmpfs "$top/small" 2>/dev/null; then
	check "mounts on a small disk" "$promptfs" mount --model "$model" --store "$top/small/store" --cache "$cache" --log-file "$log" "$mnt"
	echo "before" >"$prompts/before.txt"
	refuses "a full disk is told" "No space" dd if=/dev/zero of="$prompts/big" bs=64k count=100
	rm "$prompts/big"
	echo "after" >"$prompts/after.txt"
	is "prompts before and after" "$(cat "$prompts/before.txt" "$prompts/after.txt" | tr '\n' ' ')" "before after "
	dd if=/dev/zero of="$prompts/big" bs=4k 2>/dev/null
	check "a picture on a full disk" is_png "$images/before.png"
	check "unmounts" unmount_fs
	umount "$top/small"
	mkdir "$top/small/m" 2>/dev/null
	mount -t tmpfs -o size=128k tmpfs "$top/small"
	check "mounts with a small cache" "$promptfs" mount --model "$model" --store "$store" --cache "$top/small/cache" --log-file "$log" "$mnt"
	printf 'noise\nSize: 512x512' >"$prompts/noise.txt"
	cat "$images/noise.png" >"$top/noise.png" 2>"$top/stderr"
	is "a full cache does not cost the picture" $? 0
	unmount_fs
	umount "$top/small"
else
	echo "skip - a full disk: needs root"
fi
done_fs
