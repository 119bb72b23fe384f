# A worker's second picture is what a fresh worker paints: nothing of the job before is left in the model's state.
golden=${PROMPTFS_GOLDEN:-$(cd "$(dirname "$0")/../golden" && pwd)} # lib.sh unsets it
. "$(dirname "$0")/lib.sh"
paint() { cat "$images/$1.png" >/dev/null && cp "$images/$1.png" "$top/$1-$2.png"; }
for name in zimage-tiny flux-dev-tiny sd15-tiny sdxl-tiny sd3-tiny playground-tiny kandinsky-2-2-tiny; do
	model=$golden/models/$name
	[ -e "$model/model_index.json" ] || { echo "skip - again: no $name"; continue; }
	rm -rf "$cache" "$store"
	check "$name mounts" mount_fs --dtype f32
	printf 'a boat\nNegative prompt: blurry\nSize: 64x64, Steps: 3, Guidance: 3' >"$prompts/first.txt"
	printf 'a fox\nNegative prompt: dark\nSize: 128x64, Steps: 18, Guidance: 4' >"$prompts/second.txt"
	check "$name paints" paint first 1
	check "and again, larger" paint second 1
	check "unmounts" unmount_fs
	rm -rf "$cache"
	check "mounts anew" mount_fs --dtype f32
	check "paints the second first" paint second 2
	check "the same" cmp "$top/second-1.png" "$top/second-2.png"
	check "then the first" paint first 2
	check "the same too" cmp "$top/first-1.png" "$top/first-2.png"
	check "unmounts again" unmount_fs
done
done_fs
