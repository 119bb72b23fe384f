#!/usr/bin/env bash
# The CUDA backend without a GPU: op cases, golden cases, memory, failures and recovery, on a fake of CUDA's libraries
# (tests/cuda/fake), where the headers of a toolkit were there to build it with.
. "$(dirname "$0")/lib.sh"
tests=$(realpath "$(dirname "$0")")
build=$(dirname "$(realpath "$promptfs")")
fake=$build/fake/promptfs-cuda.so
one() { # DEVICE WORDS...: a picture of the model in the repository; what was said is in $top/said
	"$promptfs" generate --model "$tests/../../models/pocket" --cache "$top/c$RANDOM" --device "$@" --steps 1 \
		--width 64 --height 64 -v -o "$top/one.png" 'a red apple' >"$top/said" 2>&1
}

# what a machine without one says
if [ ! -e /proc/driver/nvidia/version ]; then
	refuses "cuda:0 without a GPU is an error that names what works" 'cuda:0: .*--device cpu' \
		"$promptfs" generate --device cuda:0 -o "$top/x.png" a
	check "auto works without one" one auto --log info
	check "in one line that says why" grep -q 'device cpu: no GPU: ' "$top/said"
fi
if [ ! -e "$fake" ]; then
	echo "skip - gpu: no CUDA toolkit to build the tests of the backend with"
	done_fs
	exit
fi
export PROMPTFS_CUDA=$fake

# ---- operations and models
"$build/tests/kernels" cuda:0 >"$top/cases"
is "op cases" "$?" 0
grep '^not ok' "$top/cases"
is "and there were hundreds" "$(($(grep -c '^ok' "$top/cases") > 600))" 1
if [ -n "${PROMPTFS_GOLDEN_CASES:=zimage}" ] && [ -x "$build/tests/parity" ]; then
	PROMPTFS_BINARY=$promptfs PARITY_DEVICE=cuda:0 PARITY_CASES=1 "$build/tests/parity" $PROMPTFS_GOLDEN_CASES >"$top/cases"
	is "a golden case of $PROMPTFS_GOLDEN_CASES" "$?" 0
	grep '^not ok' "$top/cases"
fi
for dtype in int8 fp8; do
	check "weights in $dtype" one cuda:0 --dtype $dtype
done
check "what was measured is remembered" test -s "$XDG_CACHE_HOME/promptfs/tuning/a-fake-of-a-GPU-1"
check "without cuDNN the own kernels do" env FAKE_CUDA_NO_CUDNN=1 "$promptfs" generate --device cuda:0 --steps 1 --width 64 \
	--height 64 --cache "$top/c" -o "$top/x.png" a

# ---- steps: recorded at the second and repeated from then on
steps() { # N NAME: a picture, its bytes in $top/NAME.png and what was called in $top/NAME
	FAKE_CUDA_COUNTS=$top/$2 "$promptfs" generate --model "$tests/../../models/pocket" --cache "$top/c$RANDOM$RANDOM" --device cuda:0 \
		--steps "$1" --width 64 --height 64 -o "$top/$2.png" 'a red apple' >"$top/said" 2>&1
}
called() { # WHAT NAME
	sed -n "s/^$1 //p" "$top/$2"
}
PROMPTFS_CUDA_GRAPHS=off steps 5 called
steps 5 repeated
check "a repeated step gives the same picture" cmp "$top/called.png" "$top/repeated.png"
is "one step is recorded" "$(called recorded repeated)" 1
is "and the others repeat it" "$(called repeated repeated)" 4
is "without graphs none is" "$(called recorded called) $(called repeated called)" "0 0"
PROMPTFS_CUDA_GRAPHS=off steps 2 fewer
# where scratch grows is another place with each schedule, so a few more or fewer are no step's
for what in waits allocations; do
	for way in called repeated; do
		is "3 more steps $way are fewer than 3 more $what" \
			"$(($(called $what $way) - $(called $what fewer) < 3))" 1
	done
done
for part in begin end instantiate; do
	FAKE_CUDA_GRAPHS=$part steps 2 "$part"
	check "a recording that fails ($part) leaves the steps as they were" cmp "$top/$part.png" "$top/fewer.png"
done
FAKE_CUDA_GRAPHS=launch steps 2 launch
check "a graph that does not start is an error with a name" grep -q 'cuda:0: repeating a step: ' "$top/said"

# ---- memory
refuses "what does not fit is refused before, with the figures" 'takes 0\.[0-9]+ GB of cuda:0.*there are 0\.10 GB' \
	"$promptfs" generate --device cuda:0 --memory-limit 100M --cache "$top/c" -o "$top/x.png" b
FAKE_CUDA_MEMORY=128 refuses "so is what the device has no room for" 'of cuda:0.*there are 0\.1' \
	"$promptfs" generate --device cuda:0 --cache "$top/c" -o "$top/x.png" b

# the plan is made from the shapes, so the aims for real models show without one
plan() { # DTYPE SIZE WANTED
	refuses "Z-Image-Turbo at $2 in $1 takes what it should" "$3" "$promptfs" bench --device cuda:0 --dtype "$1" --size "$2" \
		--model random:z-image-turbo --limit 0 --memory-limit 600M
}
plan bf16 1024x1024 'takes 2[0-9]\.[0-9]+ GB.* or 1[0-5]\.[0-9]+ GB with the parts'
plan fp8 1024x1024 ' or [67]\.[0-9]+ GB with the parts'
# decoded at once it would take 15 GB
plan fp8 2048x2048 ' or 1[01]\.[0-9]+ GB with the parts of the model in memory by turns and decoded in bands'

# ---- devices
refuses "a device that is not there" 'cuda:1: there is 1' "$promptfs" generate --device cuda:1 -o "$top/x.png" a
check "auto takes the GPU" one auto --log info
check "and says which" grep -q 'device cuda:0: a fake of a GPU, sm_90, 4.0 GiB' "$top/said"
check "models names it" eval "'$promptfs' models --device auto | grep -q cuda:0"
check "--version lists it" eval "'$promptfs' --version | grep -q '^cuda:0 a fake of a GPU'"

# ---- a daemon whose device is lost in every third job
get() { # NAME
	cat "$images/$1.png" >"$top/got.png" 2>/dev/null
}
export FAKE_CUDA_LOST=9
mount_fs --device cuda:0
for i in 1 2 3 4 5 6 7 8 9; do echo "picture $i" >"$prompts/$i.txt"; done
good=0 bad=0
for i in 1 2 3 4 5 6 7 8 9; do
	if get $i; then
		good=$((good + 1)) last=$i
	else
		bad=$((bad + 1)) failed=$i
	fi
done
is "some jobs met the lost device" "$((bad > 0))" 1
is "and some came after it" "$((good > 2))" 1
if [ $bad -gt 0 ]; then
	check "its error is named" grep -q 'cuda:0: .*cudaErrorLaunchFailure' "$status/errors/$failed.txt"
	check "what was made before is served" get "$last"
	check "and the job succeeds when it is asked for again" eventually 60 get "$failed"
fi
unmount_fs
unset FAKE_CUDA_LOST

# ---- jobs in a row: nothing grows
mount_fs --device cuda:0
for i in $(seq 101 130); do
	echo "picture $i" >"$prompts/$i.txt"
	get $i || not_ok "picture $i" "$(cat "$status/errors/$i.txt")"
	[ $i = 105 ] && before=$(metric promptfs_memory_bytes 'device="cuda:0"')
done
is "30 jobs hold no more memory than 5" "$(metric promptfs_memory_bytes 'device="cuda:0"')" "$before"
unmount_fs
done_fs
