# pjdfstest (https://github.com/pjd/pjdfstest) on prompts/: PJDFSTEST=DIR of a built checkout, as root.
# Prints ok and not ok of each group; what is not ok goes by name into $PJDFSTEST_LOG where that is given.
# PJDFSTEST_GROUPS: only these groups.  PJDFSTEST_ON=DIR: on that folder instead of a mount, for comparison.
. "$(dirname "$0")/../fs/lib.sh"

[ -n "${PJDFSTEST:-}" ] || { echo "skip - pjdfstest: PJDFSTEST=DIR names no checkout"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "skip - pjdfstest: needs root"; exit 0; }
[ -x "$PJDFSTEST/pjdfstest" ] || { echo "not ok - pjdfstest: build it in $PJDFSTEST first"; exit 1; }

where=${PJDFSTEST_ON:-$prompts/pjd}
names=${PJDFSTEST_LOG:-$top/names}
if [ -z "${PJDFSTEST_ON:-}" ]; then
	chmod 755 "$top"
	check "mounts" mount_fs -o allow_other
fi
mkdir -p "$where" && chmod 755 "$where" && cd "$where" || exit 1
: >"$names"

all_ok=0 all_bad=0
for group in ${PJDFSTEST_GROUPS:-$(cd "$PJDFSTEST/tests" && ls -d */ | tr -d /)}; do
	good=0 bad=0
	for t in "$PJDFSTEST/tests/$group"/*.t; do
		timeout 300 bash "$t" >"$top/out" 2>&1
		good=$((good + $(grep -c '^ok' "$top/out")))
		bad=$((bad + $(grep '^not ok' "$top/out" | grep -vc TODO)))
		grep -H --label="$group/$(basename "$t")" '^not ok' "$top/out" | grep -v TODO >>"$names"
	done
	printf '# %-16s %5d ok %4d not ok\n' "$group" $good $bad
	all_ok=$((all_ok + good)) all_bad=$((all_bad + bad))
done
cd /
limit=$(((all_ok + all_bad) * 2 / 1000))
if [ $all_ok -gt 0 ] && [ $all_bad -le $limit ]; then
	ok "pjdfstest: $all_ok ok, $all_bad not ok (at most $limit)"
else
	not_ok "pjdfstest" "$all_ok ok, $all_bad not ok (at most $limit); $(head -n 5 "$names" | tr '\n' ';')"
fi
[ -n "${PJDFSTEST_ON:-}" ] || done_fs
