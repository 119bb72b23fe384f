# The daemon is killed at random moments while prompts are written and pictures made: what close() accepted is there
# after the next mount, and every picture kept is whole.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-10}
set_delay 5
check "mounts" mount_fs
printf 'Size: 64x64, Steps: 1' >"$prompts/.defaults"

# Writes prompts until the mount is gone; notes each one whose close succeeded.
write_prompts() { # ROUND
	local n=0
	while n=$((n + 1)) && printf 'prompt %s' "$1.$n" >"$prompts/r$1.$n.txt"; do
		echo "$1.$n" >>"$top/closed"
	done
}
read_images() { # ROUND: keeps what could be read whole
	local n=0
	while n=$((n + 1)) && [ -e "$store/lock" ] && [ ! -e "$top/stop" ]; do
		if cat "$images/r$1.$n.png" >"$top/made/part" && [ -s "$top/made/part" ]; then
			mv "$top/made/part" "$top/made/$1.$n.png"
		else
			sleep 0.01
			[ -e "$images/r$1.$n.png" ] || n=$((n - 1))
		fi
	done
}
mkdir "$top/made"
: >"$top/closed"
for round in $(seq "$rounds"); do
	rm -f "$top/stop"
	write_prompts "$round" 2>/dev/null &
	writer=$!
	read_images "$round" 2>/dev/null &
	reader=$!
	pid=$(server)
	sleep "0.$((RANDOM % 8 + 1))"
	kill -9 "$pid"
	touch "$top/stop"
	wait $writer $reader 2>/dev/null
	mount_fs 2>"$top/mount" || not_ok "round $round mounts" "$(cat "$top/mount")"
	lost=0
	while read -r name; do
		[ "$(cat "$prompts/r$name.txt" 2>/dev/null)" = "prompt $name" ] || lost=$((lost + 1))
	done < <(grep "^$round\." "$top/closed")
	is "round $round: $(grep -c "^$round\." "$top/closed") prompts closed, $(ls "$top/made" | grep -c "^$round\.") pictures read; lost" $lost 0
done
check "every cached picture is whole" "$promptfs" cache --cache "$cache" verify
bad=0 made=0 before=$(generated)
for file in "$top"/made/*.png; do
	name=${file##*/}
	[ -e "$file" ] || continue
	made=$((made + 1))
	cmp -s "$file" "$images/r$name" || bad=$((bad + 1))
done
is "the $made pictures read before a death are the same after it" $bad 0
check "some were" test "$made" -gt 0
is "none had to be made again" "$(($(generated) - before))" 0
is "nothing is left behind" "$(ls "$cache/tmp" | wc -l)" 0
done_fs
