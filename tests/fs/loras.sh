# LoRAs in prompts: by name from the folder that is configured, keys by content, replaced files noticed.
. "$(dirname "$0")/lib.sh"
golden=${PROMPTFS_GOLDEN:-$(cd "$(dirname "$0")/../golden" && pwd)}
model=$golden/models/sd15-tiny
files=$golden/loras/sd15-tiny
[ -e "$files/kohya.safetensors" ] || { echo "skip - loras: no golden LoRAs"; exit 0; }
mkdir "$top/loras"
cp -L "$files/kohya.safetensors" "$top/loras/ink.safetensors"
mount_loras() { mount_fs --loras "$top/loras" --dtype f32; }
check "mounts" mount_loras
printf 'Size: 64x64, Steps: 1' >"$prompts/.defaults"
echo "a boat" >"$prompts/plain.txt"
echo "a boat <lora:ink:0.8>" >"$prompts/a.txt"
printf 'a boat\nLoRA: ink:0.8' >"$prompts/b.txt"
check "without" is_png "$images/plain.png" 64x64
check "with one" is_png "$images/a.png" 64x64
check "it changes the picture" bash -c "! cmp -s '$images/plain.png' '$images/a.png'"
key() { grep -o '"key": "[0-9a-f]*"' "$status/info/$1.json"; }
is "both spellings are one recipe" "$(cat "$images/b.png" >/dev/null; key b)" "$(key a)"
lora() { python3 -c "
import json
print(*(l.get('$2') for l in json.load(open('$status/info/$1.json'))['recipe']['loras']))"; }
is "the info has its name, not its place" "$(lora a name) $(lora a path)" "ink None"
modules=$(python3 -c "
import json, struct
f = open('$top/loras/ink.safetensors', 'rb')
keys = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
print(len({k.split('.')[0] for k in keys if k != '__metadata__'}))")
is "and how many of its modules were applied" "$(lora a applied) of $(lora a of)" "$modules of $modules"
cp "$top/loras/ink.safetensors" "$top/loras/other.safetensors"
printf 'a boat\nLoRA: other:0.8' >"$prompts/c.txt"
is "another name of the same file has the same key" "$(cat "$images/c.png" >/dev/null; key c)" "$(key a)"
is "two were generated" "$(generated)" 2
before=$(key a)
cp -L "$files/kohya-alpha.safetensors" "$top/loras/new" && mv "$top/loras/new" "$top/loras/ink.safetensors"
check "a replaced file is noticed" bash -c "! cmp -s '$images/a.png' '$images/c.png'"
check "under a new key" test "$before" != "$(key a)"
printf 'a boat\nLoRA: late:1' >"$prompts/l.txt"
refuses "a file that is not there" "Invalid argument" cat "$images/l.png"
check "is told by name" grep -q "late" "$status/errors/l.txt"
cp "$top/loras/other.safetensors" "$top/loras/late.safetensors"
check "until it is there" is_png "$images/l.png" 64x64
printf 'a boat\nLoRA: ../loras/ink:1' >"$prompts/o.txt"
refuses "a name that leaves the folder" "Invalid argument" cat "$images/o.png"
printf "a boat\nLoRA: $top/loras/ink.safetensors:1" >"$prompts/p.txt"
refuses "a path" "Invalid argument" cat "$images/p.png"
# a file that takes long to read: 6 GB of nothing
truncate -s 6G "$top/loras/large.safetensors"
printf 'a boat\nLoRA: large:1' >"$prompts/large.txt"
quick() { timeout 2 "$@" >/dev/null; }
check "stat of its picture does not wait for that" quick stat "$images/large.png"
cat "$images/large.png" >/dev/null 2>&1 &
reader=$!
is_read() { for i in $(seq 100); do grep -q "large.png" "$status/queue" && return; sleep 0.05; done; return 1; }
check "an open reads it" is_read
check "meanwhile ls answers" quick ls -l "$images"
check "and stat" quick stat "$images/plain.png" "$images/large.png"
check "and cached pictures are read" quick cat "$images/plain.png"
check "it is still being read" kill -0 $reader
wait $reader && failed=no || failed=yes
is "and it is no LoRA" $failed yes
done_fs
