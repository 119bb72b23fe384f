# How long things take; the bounds are wide, the figures are printed.
. "$(dirname "$0")/lib.sh"
milliseconds() { echo $((($(date +%s%N) - $1) / 1000000)); }
mount_fs && unmount_fs
start=$(date +%s%N)
mount_fs
took=$(milliseconds "$start")
check "a second mount is ready in $took ms" test "$took" -lt 1000
resident=$(awk '/VmRSS/ { print $2 }' "/proc/$(server)/status")
check "the idle daemon holds $resident kB" test "$resident" -lt 60000

printf 'a fox\nSize: 256x256' >"$prompts/a.txt"
cat "$images/a.png" >/dev/null
if command -v python3 >/dev/null; then
	memory=$(mktemp -d /dev/shm/promptfs.XXXXXX)
	cat "$images/a.png" >"$memory/a.png"
	python3 - "$memory/a.png" "$images/a.png" >"$top/times" <<-'PY'
		import os, sys, time
		def once(path):
		    t = time.perf_counter()
		    fd = os.open(path, os.O_RDONLY)
		    n = os.fstat(fd).st_size
		    assert len(os.read(fd, n)) == n
		    os.close(fd)
		    return time.perf_counter() - t
		best = None
		for _ in range(3):
		    tmpfs, ours = [sorted(once(p) for _ in range(1000))[500] for p in sys.argv[1:]]
		    if best is None or ours / tmpfs < best[1] / best[0]:
		        best = tmpfs, ours
		print(f'{best[0] * 1e6:.0f} {best[1] * 1e6:.0f} {int(best[1] * 100 / best[0])}')
	PY
	rm -r "$memory"
	read -r tmpfs ours ratio <"$top/times"
	check "open, fstat, read, close of a cached picture: $ours us, tmpfs $tmpfs us" test "${ratio:-1000}" -le 300
fi
mkdir "$prompts/many"
for n in $(seq 10000); do echo "prompt $n"  >"$store/prompts/many/p$n.txt"; done
start=$(date +%s%N)
is "10000 images are listed" "$(ls -l "$images/many" | grep -c png)" 10000
first=$(milliseconds "$start")
start=$(date +%s%N)
ls -l "$images/many" >/dev/null
again=$(milliseconds "$start")
check "ls -l of 10000 images: $first ms, then $again ms" test "$first" -lt 20000
start=$(date +%s%N)
ls -l "$prompts/many" >/dev/null
echo "# ls -l of 10000 prompts: $(milliseconds "$start") ms"
echo "# then the daemon holds $(awk '/VmRSS/ { print $2 }' "/proc/$(server)/status") kB"
is "no generation but one" "$(generated)" 1
done_fs
