#!/usr/bin/env bash
# How long the model that ships takes, and what an idle mount holds. Prints figures of this machine, at this hour; judges nothing.
#
#     [TURNS=5] tests/bench/start.sh ./promptfs
set -eu
program=$(realpath "$1") turns=${TURNS:-5}
top=$(mktemp -d)
mnt=$top/mnt
trap 'cd /; "$program" unmount "$mnt" 2>/dev/null; rm -rf "$top"' EXIT
for variable in $(compgen -e | grep '^PROMPTFS_\|^XDG_'); do unset "$variable"; done
export HOME=$top
milliseconds() { # COMMAND...
	local start
	start=$(date +%s%N)
	"$@" >/dev/null
	echo $((($(date +%s%N) - start) / 1000000))
}
median() { sort -n | sed -n "$(((turns + 1) / 2))p"; }
mount_and_paint() { # TURN
	mkdir -p "$mnt"
	"$program" mount --store "$top/store$1" --cache "$top/cache$1" "$mnt"
	echo "a red fox $1" >"$mnt/prompts/a.txt"
	cat "$mnt/images/a.png"
}
paint() { # TURN
	echo "a blue boat $1" >"$mnt/prompts/b$1.txt"
	cat "$mnt/images/b$1.png"
}
resident() { awk '/VmRSS/ { print $2 / 1000 }' "/proc/$1/status"; }

first=$(for i in $(seq "$turns"); do
	milliseconds mount_and_paint "$i"
	"$program" unmount "$mnt" >&2
done | median)
mount_and_paint last >/dev/null
next=$(for i in $(seq "$turns"); do milliseconds paint "$i"; done | median)
daemon=$(cat "$mnt/status/pid")
worker=$(pgrep -P "$daemon" | head -1 || true)
alone=$(for i in $(seq "$turns"); do
	milliseconds "$program" generate --cache "$top/alone" -o "$top/x.png" "a green tree $i"
done | median)
echo "from mount to the first picture  $first ms"
echo "another picture                  $next ms"
echo "generate, from start to end      $alone ms"
echo "memory of the idle daemon        $(resident "$daemon") MB${worker:+, its worker with the model $(resident "$worker") MB}"
