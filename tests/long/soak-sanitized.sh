# tests/long/soak.sh of SOAK_SECONDS (600 unless told) with AddressSanitizer, and again with ThreadSanitizer: neither may have
# anything to say.
cd "$(dirname "$0")/../.." || exit 1
reports=$(mktemp -d)
trap 'rm -rf "$reports"' EXIT
export SOAK_SECONDS=${SOAK_SECONDS:-600}
bad=0
export ASAN_OPTIONS=suppressions=$PWD/tests/fs/asan.supp:log_path=$reports/asan
export TSAN_OPTIONS=suppressions=$PWD/tests/fs/tsan.supp:handle_segv=0:log_path=$reports/tsan
for kind in ${SOAK_KINDS:-asan tsan}; do
	make -s -j2 VARIANT=$kind "build/$kind/promptfs" || { echo "not ok - $kind: does not build"; exit 1; }
	bash tests/long/soak.sh "$PWD/build/$kind/promptfs" | sed "s/^ok - /&$kind: /; s/^not ok - /&$kind: /; s/^# /&$kind, /"
	[ "${PIPESTATUS[0]}" = 0 ] || bad=1
	if [ -z "$(ls "$reports")" ]; then
		echo "ok - $kind has nothing to say"
	else
		echo "not ok - $kind: $(cat "$reports"/* | grep -m 3 -E 'ERROR|WARNING|SUMMARY' | tr '\n' ' ')"
		cat "$reports"/* | head -n 60 | sed 's/^/# /'
		rm -f "$reports"/*
		bad=1
	fi
done
exit $bad
