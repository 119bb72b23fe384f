# The disk below fails: what then reaches the caller is an error of the right kind, nothing that was accepted is lost, no
# wrong picture is read, and afterwards all is well.  The failures are made by tests/faults/inject.c.
. "$(dirname "$0")/../fs/lib.sh"
command -v gcc >/dev/null || { echo "skip - faults: no gcc"; exit 0; }
gcc -shared -fPIC -O1 -w -D_GNU_SOURCE -o "$top/inject.so" "$(dirname "$0")/../faults/inject.c" -ldl ||
	{ echo "not ok - faults: inject.c does not compile"; exit 1; }
plan=$top/plan
set_delay 1

# Every case: 12 prompts written and read under the plan, then without it.
run_case() { # UNDER OPERATION ERRNO EVERY
	local what="$2 $3 every $4 under ${1##*/}" n lost=0 wrong=0 refused=0 unread=0 kept=()
	: >"$plan"
	LD_PRELOAD=$top/inject.so INJECT_UNDER=$1 INJECT_PLAN=$plan check "$what: mounts" mount_fs
	mkdir -p "$prompts/d$4"
	echo "$2 $3 $4" >"$plan"
	for n in $(seq 12); do
		if { printf 'words %s\nSize: 64x64, Steps: 1' "$what $n" >"$prompts/d$4/p$n.txt"; } 2>>"$top/errors"; then
			kept+=("$n")
		else
			refused=$((refused + 1))
		fi
	done
	for n in "${kept[@]}"; do
		if cat "$images/d$4/p$n.png" >"$top/p.png" 2>>"$top/errors"; then
			is_png "$top/p.png" 64x64 || wrong=$((wrong + 1))
		else
			unread=$((unread + 1))
		fi
	done
	: >"$plan"
	for n in "${kept[@]}"; do
		[ "$(head -n 1 "$prompts/d$4/p$n.txt")" = "words $what $n" ] || lost=$((lost + 1))
		cat "$images/d$4/p$n.png" >"$top/p.png" 2>>"$top/errors" && is_png "$top/p.png" 64x64 || wrong=$((wrong + 1))
	done
	is "$what: ${#kept[@]} prompts accepted, $refused refused, $unread pictures refused; lost or wrong" "$lost $wrong" "0 0"
	check "$what: the cache is whole" "$promptfs" cache --cache "$cache" verify
	check "$what: unmounts" unmount_fs
	rm -rf "$store/prompts"/d* "$cache"
}
: >"$top/errors"
for every in 1 3; do
	for errno in 5 28; do
		for operation in write sync rename create; do
			run_case "$cache" $operation $errno $every
		done
		run_case "$store" write $errno $every
		run_case "$store" create $errno $every
	done
	run_case "$store" write 122 $every
	run_case "$cache" write 122 $every
	run_case "$cache" write 0 $every
	run_case "$store" write 0 $every
done
is "only errors of that kind are told" "$(grep -Ev 'Input/output error|No space left|Disk quota exceeded' "$top/errors" | head -n 2)" ""
done_fs
