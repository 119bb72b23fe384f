# What happens rarely: models and workers that change or die under a mount, old pictures kept open, pictures pasted back,
# large renames, the longest names, names that are no text.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs
small='Size: 64x64, Steps: 1'

# ---- the model's files change
echo "a fox" >"$prompts/a.txt"
cat "$images/a.png" >"$top/a.png"
ino=$(stat -c %i "$images/a.png")
change_model() { # MS: as set_delay, but nobody is told
	echo "{\"_class_name\": \"PromptfsTestCard\", \"delay_ms\": $1}" >"$model/model_index.json"
}
change_model 30
check "a cached picture needs no model" cmp "$images/a.png" "$top/a.png"
echo "a fox, after the model changed" >"$prompts/m.txt"
check "a changed model is noticed by itself" is_png "$images/m.png"
is "its reader saw no error" "$(ls "$status/errors")" ""
check "the new model has pictures of its own" test "$(stat -c %i "$images/a.png")" != "$ino"
check "which can be had" is_png "$images/a.png"
change_model 40
for n in 1 2 3 4; do echo "crowd $((n / 2))" >"$prompts/n$n.txt"; done
pids=()
for n in 1 2 3 4; do cat "$images/n$n.png" >/dev/null & pids+=($!); done
failed=0
for p in "${pids[@]}"; do wait "$p" || failed=$((failed + 1)); done
is "several readers at once notice it too" $failed 0
check "and it counts as loaded" grep -q '"loaded": true' "$status/models/card.json"
echo reload >"$status/control"
check "a reload does not forget what is loaded" grep -q '"loaded": true' "$status/models/card.json"
echo "unload card" >"$status/control"
check "which can be unloaded" eventually 5 grep -q '"loaded": false' "$status/models/card.json"
echo "a hen" >"$prompts/hen.txt"
check "and used again" is_png "$images/hen.png"
mv "$model" "$model.away"
echo "a fox without a model" >"$prompts/m.txt"
refuses "a model that went away" "No such device" cat "$images/m.png"
check "is named" grep -q "card" "$status/errors/m.txt"
mv "$model.away" "$model"
echo reload >"$status/control"
check "and found again" is_png "$images/m.png"

# ---- a worker is killed
worker() { pgrep -P "$(server)" | head -1; }
set_delay 150
echo "a killed worker" >"$prompts/k.txt"
cat "$images/k.png" >"$top/k.png" &
reader=$!
check "a job runs" eventually 5 grep -q '^running  [1-9]' "$status/queue"
kill -9 "$(worker)"
check "a killed worker costs its reader nothing" wait $reader
check "the picture is whole" is_png "$top/k.png"
check "the restart is counted" test "$(metric promptfs_worker_restarts_total)" -ge 1
echo "killed twice" >"$prompts/k.txt"
cat "$images/k.png" >/dev/null 2>"$top/k" &
reader=$!
for n in 1 2; do
	eventually 10 grep -q '^running  [1-9]' "$status/queue"
	kill -9 "$(worker)"
	eventually 5 bash -c '! grep -q "^running  [1-9]" "$0"' "$status/queue"
done
wait $reader
check "one that kills twice is EIO" grep -q "Input/output error" "$top/k"
check "with the reason" grep -q "signal 9.*twice" "$status/errors/k.txt"
refuses "and fails at once" "Input/output error" timeout 1 cat "$images/k.png"
set_delay 1
echo "retry k.png" >"$status/control"
check "until a retry" is_png "$images/k.png"
rm "$prompts"/*.txt

# ---- an old picture stays as long as somebody has it
if command -v python3 >/dev/null; then
	echo "the old one" >"$prompts/o.txt"
	python3 - "$images/o.png" "$prompts/o.txt" >"$top/py" 2>&1 <<-'PY'
		import mmap, os, sys
		image, prompt = sys.argv[1:]
		f = open(image, 'rb')
		size = os.fstat(f.fileno()).st_size
		m = mmap.mmap(f.fileno(), size, prot=mmap.PROT_READ)
		ino = os.fstat(f.fileno()).st_ino
		open(prompt, 'w').write('the new one\nSize: 64x64')
		new = open(image, 'rb').read()
		assert os.stat(image).st_ino != ino and len(new) != size
		old = bytes(m)
		assert old == f.read() and old != new and len(old) == size and old[-8:-4] == b'IEND'
		os.unlink(prompt)
		assert bytes(m) == old and os.pread(f.fileno(), size, 0) == old
	PY
	is "a mapping and a descriptor keep the old picture" "$?$(cat "$top/py")" 0
	# what is in a picture, pasted into a prompt file, is that picture
	printf 'a "fox", 100%% (red:1.2), line one\nline two\nNegative prompt: blurry, low\nquality\nSteps: 3, Seed: 42, Size: 96x64' >"$prompts/p.txt"
	python3 - "$images/p.png" >"$prompts/q.txt" <<-'PY'
		import struct, sys
		d, at = open(sys.argv[1], 'rb').read(), 8
		while at < len(d):
		    n, kind = struct.unpack('>I4s', d[at:at + 8])
		    if kind == b'iTXt' and d[at + 8:at + 19] == b'parameters\0':
		        sys.stdout.buffer.write(d[at + 8:at + 8 + n].split(b'\0', 5)[5])
		    at += 12 + n
	PY
	check "its parameters are text" grep -q "Seed: 42" "$prompts/q.txt"
	key() { grep '"key"' "$status/info/$1.json"; }
	count=$(generated)
	check "pasted back: the same picture" cmp "$images/q.png" "$images/p.png"
	is "the same key" "$(key q)" "$(key p)"
	is "without a generation" "$(generated)" "$count"
else
	echo "skip - mappings and pasting back: no python3"
fi

# ---- many at once
mkdir "$prompts/d"
for n in $(seq 200); do printf 'prompt %s\n%s' "$n" "$small" >"$prompts/d/p$n.txt"; done
cat "$images/d/p7.png" >"$top/p7.png"
count=$(generated)
mv "$prompts/d" "$prompts/e"
is "a renamed folder takes its 200 images along" "$(ls "$images/e" | wc -l)" 200
refuses "from the old name" "No such file" ls "$images/d"
check "with their pictures" cmp "$images/e/p7.png" "$top/p7.png"
is "not made again" "$(generated)" "$count"
stat -c %i "$images"/e/*.png >"$top/inodes"
echo "Seed: 5" >"$prompts/e/.defaults"
is "a .defaults changes all" "$(stat -c %i "$images"/e/*.png | grep -cxFf "$top/inodes")" 0
check "and their pictures" bash -c '! cmp -s "$0" "$1"' "$images/e/p7.png" "$top/p7.png"
cp "$prompts/e/.defaults" "$top/defaults" && mv "$prompts/e/.defaults" "$prompts/.defaults"
check "moved up it still counts" bash -c 'grep -q "\"seed\": 5" "$0"' "$status/info/e/p8.json"
rm "$prompts/.defaults"
check "removed: as before" cmp "$images/e/p7.png" "$top/p7.png"
mkdir "$prompts/f" && printf 'Seed: 6' >"$prompts/f/.defaults"
ln "$prompts/e/p7.txt" "$prompts/f/p7.txt"
check "a hard link elsewhere has that folder's defaults" grep -q '"seed": 6' "$status/info/f/p7.json"
check "the first keeps its own" cmp "$images/e/p7.png" "$top/p7.png"
cp -a "$images/f" "$top/f"
check "cp -a" cmp "$top/f/p7.png" "$images/f/p7.png"
is "with its time" "$(stat -c %y "$top/f/p7.png")" "$(stat -c %y "$images/f/p7.png")"
check "rm -r of it all" rm -r "$prompts/e" "$prompts/f"
is "nothing is left" "$(ls "$images")" "$(cd "$prompts" && ls | sed 's/txt$/png/')"

# ---- names
latin=$(printf 'caf\xe9')
printf 'a cafe\n%s' "$small" >"$prompts/$latin.txt"
check "a name that is no UTF-8" is_png "$images/$latin.png"
check "its info" grep -q 'caf\\\\xe9' "$status/info/$latin.json"
wide=$(printf '\xe7\x8c\xab%.0s' $(seq 83))
printf 'cats\n%s' "$small" >"$prompts/$wide.txt"
check "83 characters of three bytes" is_png "$images/$wide.png"
deep=$(printf 'd%.0s' $(seq 200))/$(printf 'e%.0s' $(seq 200))
mkdir -p "$prompts/$deep"
echo "deep one" >"$prompts/$deep/one.txt" && echo "deep two" >"$prompts/$deep/two.txt"
set_delay 150
cat "$images/$deep/one.png" >/dev/null 2>&1 &
reader=$!
check "a long path in the queue" eventually 5 grep -q "$deep/one.png$" "$status/queue"
check "is not taken for another" grep -q '"state": "new"' "$status/info/$deep/two.json"
echo "cancel $deep/one.png" >"$status/control"
wait $reader 2>/dev/null
check "can be cancelled" test -s "$status/errors/$deep/one.txt"
set_delay 1
refuses "too long in images" "File name too long" stat "$images/$(printf 'x%.0s' $(seq 256))"
refuses "too long in status" "File name too long" stat "$status/info/$(printf 'x%.0s' $(seq 256))"
refuses "no writing in status/info" "not permitted|denied" bash -c 'echo x >"$0"' "$status/info/new.json"
refuses "no removing in status/errors" "not permitted|denied|No such" rmdir "$status/errors"
printf '\xef\xbb\xbfa fox\r\n%s\r\n' "$small" >"$prompts/dos.txt"
printf 'a fox\n%s' "$small" >"$prompts/unix.txt"
check "a byte order mark and CR LF change nothing" cmp "$images/dos.png" "$images/unix.png"
done_fs
