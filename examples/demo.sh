#!/usr/bin/env bash
# demo.sh PROMPTFS: three prompts become three pictures, through a mount; then it is gone again.
# The pictures stay in ./demo/.  Nothing outside a temporary folder is touched.
set -euo pipefail
promptfs=${1:-promptfs}
work=$(mktemp -d)
mnt=$work/mnt
out=$PWD/demo
mkdir -p "$mnt" "$out"
trap '"$promptfs" unmount "$mnt" 2>/dev/null || true; rm -rf "$work"' EXIT

now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.2f s", b - a }'; }
say() { printf '\n$ %s\n' "$*"; }
read_picture() { # NAME
	local start
	start=$(now)
	cp "$mnt/images/$1.png" "$out/$1.png"
	echo "  $(since "$start")   demo/$1.png   $(wc -c <"$out/$1.png") bytes"
}

if [ ! -e /dev/fuse ]; then
	echo "There is no /dev/fuse here, so nothing can be mounted; one picture without a mount:"
	"$promptfs" generate -o "$out/fox.png" "a fox face on a green background"
	exit 0
fi

say "promptfs mount mnt"
start=$(now)
"$promptfs" mount --store "$work/store" --cache "$work/cache" "$mnt"
echo "  ready after $(since "$start")"

say "echo 'a red apple on a yellow background' > mnt/prompts/apple.txt && cp mnt/images/apple.png demo/"
echo 'a red apple on a yellow background' >"$mnt/prompts/apple.txt"
read_picture apple

say "echo '蓝色背景上的熊猫' > mnt/prompts/panda.txt && cp mnt/images/panda.png demo/"
echo '蓝色背景上的熊猫' >"$mnt/prompts/panda.txt"
read_picture panda

say "printf 'a rocket\\nSteps: 8, Seed: 7\\n' > mnt/prompts/rocket.txt && cp mnt/images/rocket.png demo/"
printf 'a rocket\nSteps: 8, Seed: 7\n' >"$mnt/prompts/rocket.txt"
read_picture rocket

say "cp mnt/images/apple.png demo/   # again: it is in the cache now"
read_picture apple

say "ls -l mnt/images"
ls -l "$mnt/images"

say "promptfs unmount mnt"
"$promptfs" unmount "$mnt"
printf '\nThree pictures are in %s\n' "$out"
