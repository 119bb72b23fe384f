# What mount(8) runs for a line of /etc/fstab.
. "$(dirname "$0")/lib.sh"
helper=$(cd "$(dirname "$0")/../.." && pwd)/examples/service/mount.fuse.promptfs
mkdir "$top/bin"
ln -s "$promptfs" "$top/bin/promptfs"
export PATH=$top/bin:$PATH
check "mounts" sh "$helper" "$model" "$mnt" -o "rw,nofail,store=$store,cache=$cache,x-note=1,max_read=131072" -n
echo "a fox" >"$prompts/a.txt"
check "a picture" is_png "$images/a.png"
check "in the store that was named" test -f "$store/prompts/a.txt"
is "options of FUSE arrive" "$(awk -v m="$mnt" '$2 == m { print $4 }' /proc/mounts | grep -o max_read=131072)" max_read=131072
refuses "an unknown option of mount(8)" "unknown option -x" sh "$helper" none "$mnt" -x
check "unmounts" unmount_fs

# ---- as mount(8) and /etc/fstab do it, in a namespace whose /sbin has the helper
if [ "$(id -u)" = 0 ] && unshare -m true 2>/dev/null; then
	mkdir "$top/up" "$top/work" "$top/base" && mount -t tmpfs tmpfs "$top/base" && mkdir "$top/base/up" "$top/base/work"
	cp "$helper" "$top/base/up/mount.fuse.promptfs" && chmod 755 "$top/base/up/mount.fuse.promptfs"
	ln -s "$(realpath "$promptfs")" "$top/base/up/promptfs" # mount(8) has a PATH of its own
	echo "$model $mnt fuse.promptfs store=$store,cache=$cache,sandbox,noauto 0 0" >"$top/fstab"
	cat >"$top/inside" <<-'S'
		mount -t overlay -o "lowerdir=/sbin,upperdir=$top/base/up,workdir=$top/base/work" overlay "$(realpath /sbin)" || exit 9
		mount -t fuse.promptfs -o "store=$store,cache=$cache" "$model" "$mnt" || exit 1
		grep -q 'the first' "$mnt/prompts/first.txt" && cat "$mnt/images/first.png" >"$top/first.png" && umount "$mnt" || exit 2
		mount -T "$top/fstab" "$mnt" && cat "$mnt/images/first.png" | cmp - "$top/first.png" || exit 3
		grep -q 'NoNewPrivs:.*1' "/proc/$(cat "$mnt/status/pid")/status" || exit 4
		umount "$mnt"
	S
	echo 'the first' >"$store/prompts/first.txt"
	export top store cache model mnt
	timeout 60 unshare -m bash "$top/inside" 2>"$top/stderr"
	status_inside=$?
	if [ $status_inside = 9 ]; then
		echo "skip - mount -t fuse.promptfs: no overlay file system"
	else
		is "mount -t fuse.promptfs, and a line of fstab ($(head -c 200 "$top/stderr"))" $status_inside 0
		check "a picture through it" is_png "$top/first.png"
	fi
	umount "$top/base"
else
	echo "skip - mount -t fuse.promptfs: needs root"
fi

# ---- services
service=${helper%/*}
if command -v systemd-analyze >/dev/null; then
	sed "s|/usr/local/bin/promptfs|$(realpath "$promptfs")|" "$service/promptfs.service" >"$top/promptfs.service"
	check "systemd accepts the unit" systemd-analyze verify "$top/promptfs.service"
	is "without a word" "$(cat "$top/stderr")" ""
else
	echo "skip - systemd-analyze: not installed"
fi
if command -v supervisord >/dev/null; then
	{
		printf '[supervisord]\nnodaemon=true\nlogfile=%s/supervisord.log\npidfile=%s/supervisord.pid\n' "$top" "$top"
		sed "s|/usr/local/bin/promptfs|$(realpath "$promptfs")|; s|/var/lib/promptfs|$store|; s|/var/cache/promptfs|$cache|
			s|/srv/promptfs|$mnt|; s|/var/log/promptfs.log|$top/supervised.log|; s|--store|--model $model --store|" "$service/supervisord.conf"
	} >"$top/supervisord.conf"
	supervisord -c "$top/supervisord.conf" >"$top/supervisord.out" 2>&1 &
	supervisor=$!
	check "supervisord starts it" eventually 20 test -e "$status/pid"
	first=$(server)
	kill -9 "$first"
	is_another() { [ -n "$(server)" ] && [ "$(server)" != "$first" ]; }
	check "and again after kill -9" eventually 20 is_another
	check "a picture" is_png "$images/a.png"
	kill $supervisor
	wait $supervisor
	is "and ends it" "$(mountpoint -q "$mnt"; echo $?)" 32
else
	echo "skip - supervisord: not installed"
fi
check "mounts" mount_fs
echo "before" >"$prompts/r.txt" && cat "$images/r.png" >/dev/null
if command -v logrotate >/dev/null; then
	sed "s|/var/log/promptfs.log|$log|; s|weekly|weekly\n\tsu root root|" "$service/logrotate" >"$top/logrotate"
	check "logrotate takes the log" logrotate -f -s "$top/rotated" "$top/logrotate"
	check "and keeps it" bash -c 'zcat -f "$0".1*' "$log"
else
	echo "skip - logrotate: not installed; its copytruncate by hand"
	cp "$log" "$log.1" && : >"$log"
fi
check "the log goes on from its start" bash -c 'echo reload >"$0" && test -s "$1" && ! grep -qP "\x00" "$1"' "$status/control" "$log"
check "what was in it is beside it" bash -c 'zcat -f "$0".1* | grep -q serving' "$log"
done_fs
