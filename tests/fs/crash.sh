# The daemon, its worker or both are killed at random moments while prompts are written, replaced and renamed and pictures
# made: what close() or fsync accepted is there after the next mount, every picture read is whole and the right one, and
# every mount comes back.  Every second mount has --sandbox.
. "$(dirname "$0")/lib.sh"
rounds=${ROUNDS:-10}
set_delay 5
check "mounts" mount_fs
printf 'Size: 64x64, Steps: 1' >"$prompts/.defaults"
going() { [ ! -e "$top/stop" ]; }

# Writes prompts until the mount is gone or the round over; notes each one whose close succeeded.
write_prompts() { # ROUND
	local n=0
	while going && n=$((n + 1)) && printf 'prompt %s' "$1.$n" >"$prompts/r$1.$n.txt"; do
		echo "$1.$n" >>"$top/closed"
	done
}
# As editors and git do: a new file, fsync, renamed over the old one.
replace_prompt() { # ROUND
	local n=0
	while going && n=$((n + 1)) && printf 'version %s' "$1.$n" >"$prompts/new" && sync "$prompts/new" &&
		mv "$prompts/new" "$prompts/v.txt"; do
		echo "$1.$n" >>"$top/replaced"
		[ $((n % 5)) = 0 ] && mkdir -p "$prompts/d$n" && mv "$prompts/d$n" "$prompts/e$1.$n"
	done
}
read_images() { # ROUND: keeps what could be read whole
	local n=0
	while n=$((n + 1)) && [ -e "$store/lock" ] && going; do
		if cat "$images/r$1.$n.png" >"$top/made/part" && [ -s "$top/made/part" ]; then
			mv "$top/made/part" "$top/made/$1.$n.png"
		else
			sleep 0.01
			[ -e "$images/r$1.$n.png" ] || n=$((n - 1))
		fi
	done
}
# Of a prompt that changes under the reader: any version's picture, but a whole one.
read_versions() { # ROUND
	local n=0
	while going && [ $((n += 1)) -lt 20 ]; do
		cat "$images/v.png" >"$top/versions/part" && [ -s "$top/versions/part" ] &&
			mv "$top/versions/part" "$top/versions/$1.$n.png"
		sleep 0.02
	done
}
lost_of() { # ROUND: prompts closed and not there
	local lost=0 name
	while read -r name; do
		[ "$(cat "$prompts/r$name.txt" 2>/dev/null)" = "prompt $name" ] || lost=$((lost + 1))
	done < <(grep "^$1\." "$top/closed")
	echo $lost
}
is_newer() { # ROUND: what is under the replaced name is the last version that was renamed there, or the one after it
	local last now
	last=$(grep "^$1\." "$top/replaced" | tail -n 1)
	now=$(cat "$prompts/v.txt")
	[ -z "$last" ] || [ "$now" = "version $last" ] || [ "$now" = "version $1.$((${last#*.} + 1))" ]
}
victims=(daemon worker both)
kill_one() { # VICTIM
	local worker
	worker=$(pgrep -P "$pid" | head -n 1)
	[ "$1" = daemon ] || [ -z "$worker" ] || kill -9 "$worker"
	[ "$1" = worker ] || kill -9 "$pid"
}
mkdir "$top/made" "$top/versions"
: >"$top/closed"
: >"$top/replaced"
for round in $(seq "$rounds"); do
	rm -f "$top/stop"
	for load in write_prompts replace_prompt read_images read_versions; do
		$load "$round" 2>/dev/null &
	done
	pid=$(server)
	victim=${victims[RANDOM % 3]}
	sleep "0.$((RANDOM % 8 + 1))"
	kill_one $victim
	if [ $victim = worker ]; then
		sleep "0.$((RANDOM % 3 + 1))"
		kill -0 "$pid" || not_ok "round $round" "the daemon died with its worker"
		echo "after round $round" >"$prompts/after.txt"
		timeout 60 cat "$images/after.png" >"$top/after.png" || not_ok "round $round" "no picture after a worker's death"
	fi
	touch "$top/stop"
	wait 2>/dev/null
	if [ $victim != worker ]; then
		MOUNT_WITH=$([ $((round % 2)) = 0 ] || echo --sandbox) mount_fs 2>"$top/mount" ||
			not_ok "round $round mounts" "$(cat "$top/mount")"
	fi
	is "round $round, $victim: $(grep -c "^$round\." "$top/closed") prompts closed, $(grep -c "^$round\." "$top/replaced") replaced, $(ls "$top/made" | grep -c "^$round\.") pictures read; lost" "$(lost_of "$round")" 0
	is_newer "$round" || not_ok "round $round" "the replaced prompt is '$(cat "$prompts/v.txt")', not $(tail -n 1 "$top/replaced")"
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
bad=0 versions=0
for file in $(ls -t "$top"/versions/*.png | head -n $((rounds * 3))); do
	versions=$((versions + 1))
	is_png "$file" 64x64 || bad=$((bad + 1))
done
is "$versions pictures of the prompt that was replaced are whole" $bad 0
is "nothing is left behind" "$(ls "$cache/tmp" | wc -l)" 0
done_fs
