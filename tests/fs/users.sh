# Several users on one mount: whose files are whose, and what each may see.
. "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ] || ! command -v setpriv >/dev/null; then
	echo "skip - several users: needs root and setpriv"
	exit 0
fi
chmod 755 "$top"
as() { # UID COMMAND...
	local uid=$1
	shift
	setpriv --reuid "$uid" --regid "$uid" --clear-groups "$@"
}
check "mounts for all" mount_fs -o allow_other
chmod 1777 "$prompts"
check "a user writes" as 1001 bash -c 'echo "a fox" >"$0/u.txt" && mkdir "$0/dir" && ln -s u.txt "$0/l.txt" && mkfifo "$0/f"' "$prompts"
is "and owns what was made" "$(cd "$prompts" && stat -c %u:%g u.txt dir l.txt f | sort -u)" 1001:1001
is "below too" "$(stat -c %u:%g "$store/prompts/u.txt")" 1001:1001
is "the image is theirs" "$(stat -c %u:%g "$images/u.png")" 1001:1001
check "another may read it" as 1002 cat "$images/u.png"
chmod 600 "$prompts/u.txt"
refuses "not what the prompt forbids" "denied" as 1002 cat "$images/u.png"
refuses "nor its info" "denied" as 1002 cat "$status/info/u.json"
check "the owner may" as 1001 cat "$images/u.png"
refuses "the sticky bit holds" "not permitted" as 1002 rm -f "$prompts/u.txt"
refuses "no writing to others' prompts" "denied" as 1002 bash -c 'echo x >>"$0"' "$prompts/u.txt"
mkdir "$prompts/group" && chgrp 1003 "$prompts/group" && chmod 2777 "$prompts/group"
check "in a set-group-id folder" as 1001 bash -c 'echo x >"$0/g.txt"; mkdir "$0/sub"' "$prompts/group"
is "the group is the folder's" "$(stat -c %u:%g "$prompts/group/g.txt")" 1001:1003
is "and the bit is inherited" "$(stat -c %g:%a "$prompts/group/sub")" 1003:2755
refuses "control is the owner's" "denied" as 1001 bash -c 'echo reload >"$0"' "$status/control"
refuses "the log too" "denied" as 1001 cat "$status/log"
set_delay 300
echo "secret words" >"$prompts/secret.txt"
cat "$images/secret.png" >/dev/null &
check "a job runs" eventually 5 grep -q 'secret.png' "$status/queue"
check "its name is hidden from others" as 1001 bash -c 'grep -q "another user" "$0" && ! grep -q secret "$0"' "$status/queue"
wait
check "unmounts" unmount_fs

# ---- each user's share of the queue
check "mounts with shares" mount_fs -o allow_other --queue-user-limit 2
set_delay 1000
pids=()
for n in $(seq 5); do
	printf "share $n\nSteps: 60" >"$prompts/s$n.txt"
	setpriv --reuid 1001 --regid 1001 --clear-groups cat "$images/s$n.png" >/dev/null 2>>"$top/refused" & pids+=($!)
	[ "$n" != 1 ] || eventually 10 grep -q '^running' "$status/queue"
done
is_refused() { [ "$(grep -c 'busy' "$top/refused")" = 2 ]; }
check "one runs, two wait, two are refused" eventually 10 is_refused
check "the reason is there" grep -q "your share" "$status/errors/s4.txt" "$status/errors/s5.txt"
echo "another's" >"$prompts/o.txt"
setpriv --reuid 1002 --regid 1002 --clear-groups cat "$images/o.png" >/dev/null & pids+=($!)
check "another user has a share of his own" eventually 10 is_queue 4
kill -9 "${pids[@]}" 2>/dev/null
wait 2>/dev/null
check "all is over with them" eventually 10 is_queue 0
set_delay 1
check "unmounts" unmount_fs
check "mounts for one" mount_fs
refuses "others stay out" "denied" as 1001 ls "$mnt"
done_fs
