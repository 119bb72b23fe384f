#!/usr/bin/env bash
# tests/gpu.sh check | bench: what only a GPU can show, each in at most 8 minutes on a bare machine with a CUDA toolkit.
#
#     tests/gpu.sh check     builds, operations, golden cases in f32 and bf16, memory checking, limits, a cancelled job,
#                            100 jobs in a row
#     tests/gpu.sh bench     `promptfs bench` on models of true size with random weights
#
# --device cuda:N (default cuda:0); --out FILE (default docs/gpu-WHAT-NAME.md); --seconds N (default 480, in all); bench:
# --models "z-image-turbo:512x512:bf16 ...".  CUDA_HOME: the toolkit, where it is not in PATH (README: GPU).
#
# Prints "ok - ", "not ok - " and "skip - " lines and their numbers at the end.  Exit status 0: passed; 1: failed; 2: wrong
# usage; 77: there is no GPU, so nothing was tested.
set -u
cd "$(dirname "$0")/.." || exit 2
root=$PWD

usage() {
	sed -n '2,/^set -u/s/^# \{0,1\}//p' "$root/tests/gpu.sh"
}

what=${1:-}
case $what in
check | bench) shift ;;
-h | --help)
	usage
	exit 0
	;;
*)
	usage >&2
	exit 2
	;;
esac
device=cuda:0 file='' seconds=480
models='z-image-turbo:512x512:bf16 z-image-turbo:1024x1024:bf16 z-image-turbo:512x512:fp8 z-image-turbo:1024x1024:fp8
sdxl:1024x1024:bf16 sd15:512x512:bf16 flux-dev:1024x1024:bf16'
while [ $# -gt 0 ]; do
	[ $# -ge 2 ] || { echo "tests/gpu.sh: $1 wants a value" >&2; exit 2; }
	case $1 in
	--device) device=$2 ;;
	--out) file=$2 ;;
	--seconds) seconds=$2 ;;
	--models) models=$2 ;;
	*) echo "tests/gpu.sh: no such option: $1 (see tests/gpu.sh --help)" >&2; exit 2 ;;
	esac
	shift 2
done
[[ $device =~ ^cuda:[0-9]+$ ]] || { echo "tests/gpu.sh: '$device' is no GPU such as cuda:0" >&2; exit 2; }
[[ $seconds =~ ^[0-9]+$ ]] || { echo "tests/gpu.sh: '$seconds' is no number of seconds" >&2; exit 2; }
for m in $models; do
	[[ $m =~ ^[a-z0-9-]+:[0-9]+x[0-9]+:[a-z0-9]+$ ]] || { echo "tests/gpu.sh: '$m' is not MODEL:WxH:DTYPE" >&2; exit 2; }
done
index=${device#cuda:}

# ---- is there a GPU, and something to build with
skip() {
	echo "skip - gpu: $1"
	echo "0 passed, 0 failed, 1 skipped"
	exit 77
}
smi() { # FIELD
	nvidia-smi -i "$index" --query-gpu="$1" --format=csv,noheader,nounits 2>/dev/null
}
command -v nvidia-smi >/dev/null || skip "there is no nvidia-smi, so no NVIDIA driver; nothing was tested"
name=$(smi name) && [ -n "$name" ] || skip "$device does not answer (nvidia-smi -i $index); nothing was tested"
toolkit=$(kernels/cuda/toolkit 2>&1) || skip "$toolkit; README says how to get one; nothing was tested"

end=$((SECONDS + seconds))
passed=0 failed=0 skipped=0
top=$(mktemp -d)
export XDG_CACHE_HOME=$top/xdg-cache XDG_DATA_HOME=$top/data XDG_CONFIG_HOME=$top/config
for variable in ${!PROMPTFS_*}; do [ "$variable" = PROMPTFS_CUDA ] || unset "$variable"; done
mnt=$top/mnt
cleanup() {
	mountpoint -q "$mnt" 2>/dev/null && ./promptfs unmount --lazy "$mnt"
	rm -rf --one-file-system "$top"
}
trap cleanup EXIT
left() {
	local n=$((end - SECONDS))
	echo $((n > 1 ? n : 1))
}
report=$top/report
say() {
	echo "$@" | tee -a "$report"
}
ok() {
	passed=$((passed + 1))
	say "ok - $1"
}
not_ok() { # NAME WHY
	failed=$((failed + 1))
	say "not ok - $1: $2"
}
missing() { # NAME WHY
	skipped=$((skipped + 1))
	say "skip - $1: $2"
}
within() { # COMMAND...: within the time that is left
	timeout "$(left)" "$@"
}
check() { # NAME COMMAND...: its words are in $top/said
	local name=$1 start=$SECONDS
	shift
	if "$@" >"$top/said" 2>&1; then
		ok "$name ($((SECONDS - start)) s)"
	else
		not_ok "$name" "status $?: $(grep -v '^ok' "$top/said" | tail -n 3 | tr '\n' ' ')"
		return 1
	fi
}
version() { # MACRO HEADER
	local header
	for header in $(sed -n 's/^CUDA_INCLUDES := //p' <<<"$toolkit"); do
		[ -f "$header/$2" ] && sed -n "s/^#define $1 *\([0-9]*\).*/\1/p" "$header/$2" | head -1
	done | head -1
}
head_of_report() {
	echo "# tests/gpu.sh $what"
	echo
	echo "- device: $name, compute capability $(smi compute_cap), $(smi memory.total) MiB, power limit $(smi power.limit) W"
	echo "- driver $(smi driver_version), CUDA $(version CUDART_VERSION cuda_runtime_api.h), cuBLAS" \
		"$(version CUBLAS_VER_MAJOR cublas_api.h).$(version CUBLAS_VER_MINOR cublas_api.h), cuDNN" \
		"$(version CUDNN_MAJOR cudnn_version.h).$(version CUDNN_MINOR cudnn_version.h)"
	echo "- promptfs $(cat VERSION) $(git rev-parse --short HEAD 2>/dev/null), $(date -u +%Y-%m-%d), $(nproc) processors"
	echo "- command: tests/gpu.sh $what --device $device --seconds $seconds$([ "$what" = bench ] && echo " --models '$(echo $models)'")"
	echo
}
finish() {
	local out=${file:-docs/gpu-$what-$(tr -c 'A-Za-z0-9\n' - <<<"$name").md}
	say "$passed passed, $failed failed, $skipped skipped"
	mkdir -p "$(dirname "$out")"
	{ head_of_report; [ -f "$top/table" ] && cat "$top/table"; echo '```'; cat "$report"; echo '```'; } >"$out"
	echo "written to $out"
	[ $failed = 0 ]
	exit
}

# ---- building, for this device alone
capability=$(smi compute_cap | tr -d .)
[ "$capability" = 90 ] && capability=90a
build() {
	within make -j"$(nproc)" CUDA=1 CUDA_ARCHS="$capability" all "$@"
}

# ---- check
one() { # DTYPE WORDS...: a picture of the model in the repository
	local dtype=$1
	shift
	within ./promptfs generate --device "$device" --dtype "$dtype" --cache "$top/cache.$RANDOM" -o "$top/one.png" "$@"
}
used() { # MiB of the device
	smi memory.used
}
sanitizer() {
	local tool
	tool=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer "${CUDA_HOME:-/nowhere}"/*/*/bin/compute-sanitizer \
		2>/dev/null | head -1)
	[ -n "$tool" ] || {
		missing "compute-sanitizer" "it is not installed (nvidia-cuda-sanitizer-api)"
		return
	}
	check "compute-sanitizer finds nothing in a small picture" within "$tool" --tool memcheck --error-exitcode 9 \
		./promptfs generate --device "$device" --cache "$top/cache.s" --steps 1 --width 64 --height 64 -o "$top/s.png" 'a fox'
}
limits() {
	if ./promptfs generate --device "$device" --memory-limit 100M --cache "$top/c" -o "$top/x.png" a 2>"$top/said"; then
		not_ok "a limit too low is refused" "it was not"
	elif grep -q 'takes .* GB of .*there are 0\.10 GB' "$top/said"; then
		ok "a limit too low is refused, with the figures"
	else
		not_ok "a limit too low is refused, with the figures" "$(cat "$top/said")"
	fi
	check "a limit that suffices is kept" one bf16 --memory-limit 1G 'a fox'
}
graphs() {
	PROMPTFS_CUDA_GRAPHS=off one bf16 'a fox' >"$top/said" 2>&1 && mv "$top/one.png" "$top/called.png"
	check "steps as CUDA graphs" one bf16 'a fox' &&
		check "give the same picture as steps without" cmp "$top/one.png" "$top/called.png"
}
cancelled() {
	local before after status
	before=$(used)
	timeout -s INT 3 ./promptfs generate --device "$device" --steps 1000 --cache "$top/c" -o "$top/x.png" 'a fox' 2>"$top/said"
	status=$?
	sleep 1
	after=$(used)
	if [ $status != 124 ]; then
		not_ok "a cancelled job" "it ended by itself, status $status: $(tail -n 1 "$top/said")"
	elif [ "$after" -le "$before" ]; then
		ok "a cancelled job leaves nothing on the device"
	else
		not_ok "a cancelled job leaves nothing on the device" "$before MiB before, $after after"
	fi
	check "and the next one works" one bf16 'a fox'
}
metric() { # NAME LABELS
	awk -v name="$1" -v labels="$2" 'index($1, name "{") == 1 && index($1, labels) { sum += $2 } END { printf "%.0f\n", sum }' \
		"$mnt/status/metrics"
}
in_a_row() {
	local early=0 late=0 early_used=0 i bad=0
	mkdir -p "$mnt"
	./promptfs mount --device "$device" --cache "$top/row" --store "$top/store" "$mnt" || {
		not_ok "a mount" "failed"
		return
	}
	for i in $(seq 100); do
		echo "picture $i" >"$mnt/prompts/$i.txt"
		timeout "$(left)" cat "$mnt/images/$i.png" >"$top/got.png" 2>/dev/null || bad=$((bad + 1))
		if [ "$i" = 10 ]; then
			early=$(metric promptfs_memory_bytes "device=\"$device\"") early_used=$(used)
		fi
	done
	late=$(metric promptfs_memory_bytes "device=\"$device\"")
	if [ $bad = 0 ]; then ok "100 jobs in a row"; else not_ok "100 jobs in a row" "$bad failed"; fi
	if [ "$early" = "$late" ] && [ "$early" != 0 ] && [ "$(used)" -le $((early_used + 16)) ]; then
		ok "hold no more memory than 10 ($late bytes)"
	else
		not_ok "hold no more memory than 10" "$early and $late bytes, $early_used and $(used) MiB of the device"
	fi
	./promptfs unmount "$mnt"
}
run_check() {
	check "builds without a warning" build build/release/tests/kernels build/release/tests/parity || finish
	grep -i warning "$top/said" && not_ok "builds without a warning" "see above"
	check "auto takes the GPU" within bash -c "./promptfs models --device auto | grep -q '$device'"
	check "operations against the reference" within env CUDA_LAUNCH_BLOCKING=1 build/release/tests/kernels "$device"
	grep '^not ok' "$top/said" | head -n 20 | tee -a "$report"
	check "golden cases in f32 and bf16, three of each family" within env PROMPTFS_BINARY=./promptfs PARITY_DEVICE="$device" \
		PARITY_CASES=3 build/release/tests/parity
	grep '^not ok' "$top/said" | head -n 20 | tee -a "$report"
	for dtype in int8 fp8; do
		check "a picture in $dtype" one $dtype 'a fox' || true
	done
	graphs
	limits
	cancelled
	in_a_row
	sanitizer
	finish
}

# ---- bench
run_bench() {
	local m model size dtype
	check "builds" build || finish
	for m in $models; do
		IFS=: read -r model size dtype <<<"$m"
		[ "$(left)" -gt 20 ] || {
			missing "$m" "no time is left"
			continue
		}
		if check "$m" within ./promptfs bench --device "$device" --dtype "$dtype" --model "random:$model" --size "$size" --repeats 3; then
			{ echo "## $model, $size, $dtype"; echo '```'; cat "$top/said"; echo '```'; echo; } | tee -a "$top/table"
		fi
		[ "$m" = "${models%%[[:space:]]*}" ] || continue
		if PROMPTFS_CUDA_GRAPHS=off check "$m without CUDA graphs" within ./promptfs bench --device "$device" --dtype "$dtype" \
			--model "random:$model" --size "$size" --repeats 3; then
			{ echo "## $model, $size, $dtype, without CUDA graphs"; echo '```'; cat "$top/said"; echo '```'; echo; } | tee -a "$top/table"
		fi
	done
	finish
}

run_"$what"
