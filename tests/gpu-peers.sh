#!/usr/bin/env bash
# tests/gpu-peers.sh [--device cuda:N] [--out FILE] [--python PROGRAM] [--repeats N] [MODEL:WxH:STEPS...]: promptfs beside
# diffusers, eager and with torch.compile, on the same random models of true size, the same shapes, in the same run; prints
# seconds a picture and the ratios.  Default: z-image-turbo:512x512:8 z-image-turbo:1024x1024:8, in bf16.
#
# Needs ./promptfs with its plugin (make CUDA=1) and a Python with torch, transformers and diffusers (--python; default
# python3).  Exit status 0: measured; 1: something failed; 2: wrong usage; 77: no GPU or no such Python, nothing measured.
set -u
cd "$(dirname "$0")/.." || exit 2

usage() {
	sed -n '2,/^set -u/s/^# \{0,1\}//p' tests/gpu-peers.sh
}
device=cuda:0 out='' python=python3 repeats=3 shapes=()
while [ $# -gt 0 ]; do
	case $1 in
	-h | --help)
		usage
		exit 0
		;;
	--device | --out | --python | --repeats)
		[ $# -ge 2 ] || { echo "tests/gpu-peers.sh: $1 wants a value" >&2; exit 2; }
		declare "${1#--}=$2"
		shift 2
		;;
	*)
		[[ $1 =~ ^[a-z0-9-]+:[0-9]+x[0-9]+:[0-9]+$ ]] || {
			echo "tests/gpu-peers.sh: '$1' is not MODEL:WxH:STEPS (see --help)" >&2
			exit 2
		}
		shapes+=("$1")
		shift
		;;
	esac
done
[[ $device =~ ^cuda:[0-9]+$ ]] || { echo "tests/gpu-peers.sh: '$device' is no GPU such as cuda:0" >&2; exit 2; }
[ ${#shapes[@]} -gt 0 ] || shapes=(z-image-turbo:512x512:8 z-image-turbo:1024x1024:8)

skip() {
	echo "skip - gpu-peers: $1; nothing was measured"
	exit 77
}
command -v nvidia-smi >/dev/null || skip "there is no nvidia-smi, so no NVIDIA driver"
name=$(nvidia-smi -i "${device#cuda:}" --query-gpu=name --format=csv,noheader) || skip "$device does not answer"
"$python" -c 'import torch, transformers, diffusers, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null ||
	skip "$python has no torch that sees a GPU, no transformers or no diffusers"
[ -x promptfs ] && ./promptfs models --device "$device" >/dev/null || skip "./promptfs cannot use $device (make CUDA=1)"

top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
export HF_HUB_OFFLINE=1 XDG_CACHE_HOME=$top/cache
failed=0
{
	echo "# tests/gpu-peers.sh"
	echo
	echo "- device: $name, driver $(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -1), $(date -u +%Y-%m-%d)"
	echo "- promptfs $(cat VERSION) $(git rev-parse --short HEAD 2>/dev/null), $("$python" -c 'import torch, diffusers
print("torch", torch.__version__, "diffusers", diffusers.__version__)')"
	echo "- command: tests/gpu-peers.sh ${shapes[*]}, medians of $repeats after warming up, bf16, random weights"
	echo
	echo "| model | size | steps | program | seconds a picture | promptfs is faster by |"
	echo "|---|---|---|---|---|---|"
} >"$top/report"
for shape in "${shapes[@]}"; do
	IFS=: read -r model size steps <<<"$shape"
	ours=$(timeout 300 ./promptfs bench --device "$device" --dtype bf16 --model "random:$model" --size "$size" --steps "$steps" \
		--repeats "$repeats" --limit 0 --json | "$python" -c 'import json, sys; print(json.load(sys.stdin)["runs"][0]["seconds"])')
	if [ -z "$ours" ]; then
		echo "not ok - promptfs on $shape"
		failed=1
		continue
	fi
	echo "| $model | $size | $steps | promptfs | $ours | |" >>"$top/report"
	for way in eager compile; do
		theirs=$(timeout 400 "$python" tests/bench/peer_diffusers.py "models/random/$model" "$size" "$steps" "$way" \
			"$repeats" "$device" 2>"$top/err") || {
			echo "not ok - diffusers, $way, on $shape: $(tail -n 1 "$top/err")"
			failed=1
			continue
		}
		ratio=$(awk -v a="$theirs" -v b="$ours" 'BEGIN { printf "%.2f", a / b }')
		echo "ok - $shape: diffusers, $way, $theirs s; promptfs $ours s; ratio $ratio"
		echo "| | | | diffusers, $way | $theirs | $ratio |" >>"$top/report"
	done
done
out=${out:-docs/gpu-peers-$(tr -c 'A-Za-z0-9\n' - <<<"$name").md}
mkdir -p "$(dirname "$out")"
cp "$top/report" "$out"
echo "written to $out"
exit $failed
