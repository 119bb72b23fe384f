#!/usr/bin/env bash
# seeds.sh MOUNT NAME COUNT: the prompt MOUNT/prompts/NAME.txt with COUNT seeds, as NAME-1.png, NAME-2.png, ... here.
#
#     echo 'a mushroom on a brown background' > mnt/prompts/mushroom.txt
#     examples/seeds.sh mnt mushroom 6
set -euo pipefail
mnt=$1 name=$2 count=$3

mkdir -p "$mnt/prompts/$name-seeds"
for seed in $(seq "$count"); do
	{ cat "$mnt/prompts/$name.txt"; echo "Seed: $seed"; } >"$mnt/prompts/$name-seeds/$seed.txt"
done
for seed in $(seq "$count"); do
	cp "$mnt/images/$name-seeds/$seed.png" "$name-$seed.png" # painted here, at open
	echo "$name-$seed.png"
done
