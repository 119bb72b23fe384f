# FUZZ_CPU seconds of processor time (3600 unless told) of libFuzzer on what users write: prompt files, lines of parameters,
# .defaults, control commands, configuration, names.  In turns of FUZZ_TURN seconds (120), one process at a time; what each
# finds goes on in build/fuzz/corpus, what fails goes to tests/fuzz/crashers, where `make check` tries it again.
cd "$(dirname "$0")/../.." || exit 1
command -v clang >/dev/null || { echo "skip - fuzz: no clang"; exit 0; }
targets=${FUZZ_TARGETS:-prompt items defaults control config names}
make -s -j2 $(for t in $targets; do echo "build/fuzz/$t"; done) || { echo "not ok - fuzz: does not build"; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
TIMEFORMAT='%U %S'

fuzz() { # TARGET: one turn
	mkdir -p "build/fuzz/corpus/$1" "tests/fuzz/crashers/$1"
	"build/fuzz/$1" -max_total_time="${FUZZ_TURN:-120}" -timeout=120 -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
		-artifact_prefix="tests/fuzz/crashers/$1/" "build/fuzz/corpus/$1" "tests/fuzz/seeds/$1" >"$work/said" 2>&1 ||
		{ echo "$1" >>"$work/failed"; tail -n 15 "$work/said" | sed 's/^/# /' >>"$work/reasons"; }
	rmdir -p "tests/fuzz/crashers/$1" 2>/dev/null
}
seconds() { awk '{ s += $2 + $3 } END { print int(s) }' "$work/turns"; }

: >"$work/turns"
: >"$work/failed"
while [ "$(seconds)" -lt "${FUZZ_CPU:-3600}" ]; do
	for t in $targets; do
		spent=$({ time fuzz "$t"; } 2>&1)
		echo "$t $spent $(awk '/number_of_executed_units/ { print $2 }' "$work/said")" | tee -a "${FUZZ_LOG:-/dev/null}" >>"$work/turns"
	done
done
[ ! -e "$work/reasons" ] || cat "$work/reasons"
bad=0
for t in $targets; do
	awk -v t="$t" '$1 == t { s += $2 + $3; n += $4 } END { printf "# %-9s %5d s of processor time, %d inputs\n", t, s, n }' "$work/turns"
	found=$(grep -cx "$t" "$work/failed")
	if [ "$found" = 0 ]; then echo "ok - $t"; else bad=1; echo "not ok - $t: $found findings in tests/fuzz/crashers/$t"; fi
done
echo "# in all $(seconds) s of processor time, $(awk '{ n += $4 } END { printf "%d", n }' "$work/turns") inputs"
exit $bad
