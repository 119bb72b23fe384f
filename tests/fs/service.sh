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
done_fs
