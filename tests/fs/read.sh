# Pictures: what stat, open and read say of them, and what edits do to them.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs

# ---- looking and reading
echo "a fox" >"$prompts/a.txt"
is "an image for the prompt" "$(ls "$images")" a.png
size=$(stat -c %s "$images/a.png")
is "looking generates nothing" "$(stat "$images/a.png" >/dev/null; ls -l "$images" >/dev/null; generated)" 0
is "blocks are those of the size" "$(stat -c %b "$images/a.png")" $(((size + 511) / 512))
cat "$images/a.png" >"$top/a.png"
is "as many bytes as stat said" "$(wc -c <"$top/a.png")" "$size"
is "the size stays" "$(stat -c %s "$images/a.png")" "$size"
check "a whole PNG of 256x256" is_png "$top/a.png" 256x256
is "one generation" "$(generated)" 1
check "the same bytes again" cmp "$images/a.png" "$top/a.png"
is "still one generation" "$(generated)" 1
check "its parameters are in it" grep -qa "Steps: 4" "$top/a.png"
is "mode, links" "$(stat -c '%a %h' "$images/a.png")" "444 1"
is "its time is the prompt's" "$(stat -c %y "$images/a.png")" "$(stat -c %y "$prompts/a.txt")"
is "readdir's inode number is stat's" "$(ls -i "$images" | awk '{print $1}')" "$(stat -c %i "$images/a.png")"
check "read backwards in pieces" bash -c 'for o in 190000 100000 4096 1; do
	cmp <(tail -c +$((o + 1)) "$0" | head -c 777) <(tail -c +$((o + 1)) "$1" | head -c 777) || exit 1; done' "$images/a.png" "$top/a.png"

# ---- edits
ino=$(stat -c %i "$images/a.png")
exec 5<"$images/a.png"
head -c 100 <&5 >"$top/head"
echo "a wolf" >"$prompts/a.txt"
check "a rewrite gives another inode" test "$(stat -c %i "$images/a.png")" != "$ino"
cat "$images/a.png" >"$top/wolf.png"
check "another picture" bash -c '! cmp -s "$0" "$1"' "$top/wolf.png" "$top/a.png"
cat <&5 >>"$top/head"
exec 5<&-
check "the open file keeps the old picture" cmp "$top/head" "$top/a.png"
echo "a fox" >"$prompts/a.txt"
count=$(generated)
check "the old text gives the old picture" cmp "$images/a.png" "$top/a.png"
is "without a generation" "$(generated)" "$count"
is "the old text has the old inode" "$(stat -c %i "$images/a.png")" "$ino"

touch -d "2001-02-03 04:05:06.789" "$prompts/a.txt"
is "touch moves the time" "$(stat -c %y "$images/a.png")" "$(stat -c %y "$prompts/a.txt")"
check "and not the picture" cmp "$images/a.png" "$top/a.png"
is "nor makes it anew" "$(generated)" "$count"
mv "$prompts/a.txt" "$prompts/b.txt"
refuses "a renamed prompt's old image is gone at once" "No such file" stat "$images/a.png"
check "the new one is there, the same" cmp "$images/b.png" "$top/a.png"
is "a rename generates nothing" "$(generated)" "$count"
chmod 640 "$prompts/b.txt"
is "the mode follows" "$(stat -c %a "$images/b.png")" 440
rm "$prompts/b.txt"
refuses "a removed prompt's image is gone at once" "No such file" cat "$images/b.png"
is "and not listed" "$(ls "$images")" ""

# ---- what is no prompt
: >"$prompts/empty.txt"
printf ' \n\t\r\n' >"$prompts/blank.txt"
echo x | tee "$prompts/.hidden.txt" "$prompts/4913" "$prompts/a.txt~" "$prompts/#a.txt#" "$prompts/note.md" >/dev/null
mkdir "$prompts/.git" && echo x >"$prompts/.git/a.txt"
mkfifo "$prompts/fifo.txt"
ln -s nobody@host "$prompts/.#a.txt"
is "none of these shows" "$(ls -A "$images")" ""
refuses "nor opens" "No such file" cat "$images/blank.png"
echo "now something" >"$prompts/empty.txt"
is "until it says something" "$(ls "$images")" empty.png
rm -rf "$prompts/.git" "$prompts"/* "$prompts"/.hidden.txt "$prompts/.#a.txt"

# ---- wrong parameters
printf 'a fox\nSteps: many' >"$prompts/bad.txt"
check "an image all the same" test -s "$images/bad.png"
refuses "opening says EINVAL" "Invalid argument" cat "$images/bad.png"
check "status/errors has the reason" grep -q "Steps" "$status/errors/bad.txt"
check "status/info says failed" grep -q '"state": "failed"' "$status/info/bad.json"
printf 'a fox\nSteps: 4, Size: 64x96' >"$prompts/bad.txt"
cat "$images/bad.png" >"$top/b.png"
check "mended, it is a picture of its size" is_png "$top/b.png" 64x96
is "its error is gone" "$(ls "$status/errors")" ""
printf 'a fox\nModel: nobody' >"$prompts/bad.txt"
refuses "no such model" "No such device" cat "$images/bad.png"
printf 'a \xff fox' >"$prompts/bad.txt"
refuses "no UTF-8" "Invalid argument" cat "$images/bad.png"
rm "$prompts/bad.txt"

# ---- read-only
echo "a fox" >"$prompts/a.txt"
denied="not permitted|denied|Read-only"
refuses "no writing" "$denied" bash -c 'echo x >"$0"' "$images/a.png"
refuses "no appending" "$denied" bash -c 'echo x >>"$0"' "$images/a.png"
refuses "no creating" "$denied" bash -c 'echo x >"$0"' "$images/new.png"
refuses "no truncating" "$denied" truncate -s 0 "$images/a.png"
refuses "no removing" "$denied" rm -f "$images/a.png"
refuses "no renaming" "$denied" mv "$images/a.png" "$images/b.png"
refuses "no folders" "$denied" mkdir "$images/d"
refuses "no links" "$denied" ln -s a.png "$images/l.png"
refuses "no hard links" "$denied" ln "$images/a.png" "$images/l.png"
refuses "no chmod" "$denied" chmod 600 "$images/a.png"
refuses "no touch" "$denied" touch "$images/a.png"
refuses "none in the root" "$denied" mkdir "$mnt/d"
refuses "nor in status" "$denied" bash -c 'echo x >"$0"' "$status/queue"
check "the picture is still there" cmp "$images/a.png" "$top/a.png"

# ---- folders, links, defaults
mkdir -p "$prompts/d/e"
echo "a hen" >"$prompts/d/e/h.txt"
printf 'Size: 64x64, Steps: 2' >"$prompts/d/.defaults"
cat "$images/d/e/h.png" >"$top/h.png"
check "a folder's .defaults count below" is_png "$top/h.png" 64x64
printf 'Size: 96x64' >"$prompts/d/e/.defaults"
cat "$images/d/e/h.png" >"$top/h2.png"
check "a nearer one wins" is_png "$top/h2.png" 96x64
check "key by key" grep -qa "Steps: 2" "$top/h2.png"
before=$(stat -c %Y%y "$images/d/e/h.png")
rm "$prompts/d/e/.defaults"
check "without it the outer one again" cmp "$images/d/e/h.png" "$top/h.png"
check "and the time moved" test "$before" '<' "$(stat -c %Y%y "$images/d/e/h.png")"
printf 'Size: huge' >"$prompts/d/.defaults"
refuses "a wrong one makes all below EINVAL" "Invalid argument" cat "$images/d/e/h.png"
check "and is named" grep -q "prompts/d/.defaults" "$status/errors/d/e/h.txt"
rm "$prompts/d/.defaults"
ln -s a.txt "$prompts/l.txt"
ln -s d/e "$prompts/short"
ln -s "$prompts/a.txt" "$prompts/abs.txt"
ln -s /etc/passwd "$prompts/out.txt"
ln -s /etc "$prompts/etc"
is "links" "$(cd "$images" && find . | sort | tr '\n' ' ')" ". ./a.png ./abs.png ./d ./d/e ./d/e/h.png ./l.png ./short "
is "a link to a prompt" "$(readlink "$images/l.png")" a.png
is "an absolute one" "$(readlink "$images/abs.png")" "$images/a.png"
is "a link to a folder" "$(readlink "$images/short")" d/e
check "through the links" cmp "$images/l.png" "$images/abs.png"
check "through the folder" test "$(stat -L -c %i "$images/short/h.png")" = "$(stat -c %i "$images/d/e/h.png")"
mv "$prompts/d" "$prompts/f"
check "a renamed folder" test -f "$images/f/e/h.png"
refuses "its old name" "No such file" stat "$images/d"
ln "$prompts/a.txt" "$prompts/hard.txt"
check "hard links are images of their own" test "$(stat -c %i "$images/hard.png")" != "$(stat -c %i "$images/a.png")"
check "with one picture" cmp "$images/hard.png" "$images/a.png"
mkdir "$prompts/a.png"
is "a folder of an image's name" "$(stat -c %F "$images/a.png")" "regular file"
is "shows once" "$(ls "$images" | grep -c '^a.png$')" 1

# ---- names
long=$(printf 'x%.0s' $(seq 251))
echo "a fox" >"$prompts/$long.txt"
check "the longest name" cmp "$images/$long.png" "$top/a.png"
refuses "too long a name" "File name too long" stat "$images/${long}y.png"
refuses "in prompts too" "File name too long" stat "$prompts/${long}y.txt"
odd=$'new\nline \x01"\\'
printf 'a fox\nSteps: none' >"$prompts/$odd.txt"
check "an odd name" test -f "$images/$odd.png"
check "its error is a file" test -f "$status/errors/$odd.txt"
check "its info too" grep -q '"state": "failed"' "$status/info/$odd.json"

# ---- seeds
printf 'a fox\nSeed: -1' >"$prompts/s.txt"
seed() { grep -o '"seed": [0-9]*' "$status/info/$1.json"; }
drawn=$(seed s)
check "a random seed" test -n "$drawn" -a "$drawn" != '"seed": 0'
mv "$prompts/s.txt" "$prompts/s2.txt"
is "sticks over a rename" "$(seed s2)" "$drawn"
ln "$prompts/s2.txt" "$prompts/s3.txt"
is "and a hard link" "$(seed s3)" "$drawn"
touch "$prompts/s2.txt"
is "and touch" "$(seed s2)" "$drawn"
cp "$prompts/s2.txt" "$prompts/s4.txt"
check "a copy draws its own" test "$(seed s4)" != "$drawn"
rm "$prompts/s3.txt"
check "unmounts in between" unmount_fs
check "mounts again" mount_fs
is "and a new mount" "$(seed s2)" "$drawn"
printf 'a wolf\nSeed: -1' >"$prompts/s2.txt"
check "an edit draws another" test "$(seed s2)" != "$drawn"
count=$(generated)
check "pictures outlive the mount" cmp "$images/$long.png" "$top/a.png"
is "in the cache" "$(generated)" "$count"
done_fs
