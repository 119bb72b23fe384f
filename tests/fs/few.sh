# Many prompts and few descriptors: most files are then reached by folder and name (fs/reach.h).
. "$(dirname "$0")/lib.sh"
few_files() { ( ulimit -n 64 && mount_fs ); }
check "mounts with 64 descriptors" few_files
mkdir "$prompts/many"
cd "$prompts/many" || exit 1
for n in $(seq 300); do echo "prompt $n" >"p$n.txt"; done
is "300 prompts are listed" "$(ls -l | grep -c ' p[0-9]*\.txt')" 300
is "and 300 pictures" "$(ls -l "$images/many" | grep -c ' p[0-9]*\.png')" 300
is "the last is read" "$(cat p300.txt)" "prompt 300"
echo more >>p300.txt
is "appended to" "$(tail -n 1 p300.txt)" more
truncate -s 3 p299.txt
is "cut" "$(cat p299.txt)" pro
chmod 600 p298.txt
touch -d 2020-01-02 p298.txt
is "its mode and time change" "$(stat -c '%a %y' p298.txt | cut -c1-14)" "600 2020-01-02"
inode=$(stat -c %i p297.txt)
mv p297.txt moved.txt
is "a rename keeps the inode" "$(stat -c %i moved.txt)" "$inode"
is "and the content" "$(cat moved.txt)" "prompt 297"
mv ../many ../MANY && cd ../MANY || exit 1
is "so does that of its folder" "$(cat "$prompts/MANY/moved.txt" p296.txt | tr '\n' ' ')" "prompt 297 prompt 296 "
ln p295.txt link.txt
rm p295.txt
is "the other name of a removed one" "$(cat link.txt)" "prompt 295"
exec 7<p294.txt 8<>p293.txt
rm p294.txt p293.txt
is "a removed file is read on" "$(cat <&7)" "prompt 294"
echo "new words" >&8
is "and written, and stands in no listing" "$(stat -L -c %s /proc/self/fd/8) $(ls | grep -c 'p29[34]')" "11 0"
exec 7<&- 8<&-
for n in $(seq 10); do echo "again $n" >"p29$n.txt"; done
is "a new file is another inode" "$(cat p293.txt)" "again 3"
echo over >o.txt
mv o.txt p292.txt
is "renamed over" "$(cat p292.txt)" over
ln -s p292.txt soft.txt
is "a link" "$(readlink soft.txt)" p292.txt
if mv --help | grep -q -- --exchange; then
	mv --exchange p290.txt p289.txt
	is "exchanged" "$(cat p290.txt p289.txt | tr '\n' ' ')" "prompt 289 prompt 290 "
fi
check "a picture" is_png "$images/MANY/p1.png"
is "no file stays open" "$(ls "/proc/$(server)/fd" | wc -l | awk '{ print ($1 <= 64) }')" 1
cd /
done_fs
