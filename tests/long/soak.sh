# Mixed load for SOAK_SECONDS (3600 unless told): memory and descriptors of the daemon and its worker must not grow.
# SOAK_PAUSE seconds (none unless told) lie between two steps of each of the six.  After a tenth of the time they are noted; at the end they may have grown by a tenth and 8 MB, and by 8 descriptors.
. "$(dirname "$0")/../fs/lib.sh"
seconds=${SOAK_SECONDS:-3600} pause=${SOAK_PAUSE:-0}
end=$((SECONDS + seconds))
set_delay 2
check "mounts" mount_fs
printf 'Size: 64x64, Steps: 1' >"$prompts/.defaults"

going() { sleep "$pause"; [ $SECONDS -lt $end ] && [ ! -e "$top/stop" ]; }
bad() { echo "$*" >>"$top/bad"; }
writer() { # N: makes, edits, renames and removes prompts of its own
	local n=0 dir=$prompts/w$1
	while going; do
		n=$((n + 1))
		mkdir -p "$dir/$((n % 7))"
		printf 'words %s' "$1.$n" >"$dir/$((n % 7))/a.txt" || bad "write"
		mv "$dir/$((n % 7))/a.txt" "$dir/$((n % 7))/b$((n % 50)).txt" || bad "rename"
		[ $((n % 11)) = 0 ] && rm -rf "${dir:?}/$((n % 5))"
		[ $((n % 3)) = 0 ] && ln -sf "b$((n % 50)).txt" "$dir/$((n % 7))/l.txt"
	done
}
reader() { # N: looks at, lists and reads what the writer of that number makes
	local n=0 dir=w$1 file
	while going; do
		n=$((n + 1))
		file=$images/$dir/$((n % 7))/b$((n % 50)).png
		if [ -e "$file" ] && cat "$file" >"$top/r$1" 2>/dev/null && [ -s "$top/r$1" ]; then
			[ "$(hex "$top/r$1" 0 8)" = 89504e470d0a1a0a ] || bad "no PNG: $file"
			echo >>"$top/reads"
		fi
		ls -lR "$images/$dir" >/dev/null 2>&1
		[ $((n % 20)) = 0 ] && cat "$status/queue" "$status/metrics" "$status/log" >/dev/null
		[ $((n % 50)) = 0 ] && { timeout -s KILL 0.05 cat "$file" >/dev/null 2>&1; }
	done
}
# Prints kB of memory and descriptors of the daemon, without those of prompts, which the kernel decides upon.  Memory is what lies at 0x500000000000
# and above: program, heap, libraries, stacks.  Below lies what a sanitizer notes of every address ever touched (in 245 s of ThreadSanitizer that grew by 10 MB, all else by 3).
weigh() {
	echo "$(awk '/^[0-9a-f]+-/ { own = /^[5-7]/ && index($1, "-") == 13 } /^Rss:/ && own { kB += $2 } END { print kB }' "/proc/$(server)/smaps") $(ls -l "/proc/$(server)/fd" | grep -vc "$store/prompts/")"
}
: >"$top/reads"
: >"$top/bad"
for n in 1 2 3; do
	writer $n 2>/dev/null &
	reader $n 2>/dev/null &
done
sleep $((seconds / 10))
read -r memory files <<<"$(weigh)"
while going; do sleep 1; done
sleep 1
read -r memory_after files_after <<<"$(weigh)"
touch "$top/stop"
wait
echo "# $seconds s: $(wc -l <"$top/reads") pictures read, $(generated) generated; memory $memory kB, then $memory_after kB; descriptors $files, then $files_after"
check "memory does not grow" test "$memory_after" -le $((memory + memory / 10 + 8192))
check "descriptors do not grow" test "$files_after" -le $((files + 8))
is "nothing went wrong: $(sort "$top/bad" | uniq -c | head -n 3)" "$(wc -l <"$top/bad")" 0
check "pictures were read" test "$(wc -l <"$top/reads")" -gt 0
check "the cache is whole" "$promptfs" cache --cache "$cache" verify
check "no worker died" test "$(metric promptfs_worker_restarts_total)" = 0
done_fs
