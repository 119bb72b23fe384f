# examples/service/compose.yaml with Docker, as root: the image is built, the host sees the mount that is made inside, prompts
# and pictures outlive a kill -9 and a new container, and stopping unmounts.  Two minutes of building.
. "$(dirname "$0")/../fs/lib.sh"
if docker compose version >/dev/null 2>&1; then
	compose="docker compose"
elif command -v docker-compose >/dev/null; then
	compose=docker-compose
else
	echo "skip - compose: no docker compose"
	exit 0
fi
docker info >/dev/null 2>&1 || { echo "skip - compose: no Docker daemon"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "skip - compose: needs root"; exit 0; }

export PROMPTFS_HOST=$top/host COMPOSE_PROJECT_NAME=promptfs-test-$$
mnt=$top/host/mnt prompts=$top/host/mnt/prompts images=$top/host/mnt/images status=$top/host/mnt/status
mkdir -p "$mnt"
mount --bind "$top/host" "$top/host" && mount --make-shared "$top/host" || { echo "skip - compose: no bind mounts"; exit 0; }
run() { # COMMAND...: of compose
	$compose -f "$(dirname "$script")/../../examples/service/compose.yaml" "$@"
}
cleanup_container() {
	run down -v --rmi local >/dev/null 2>&1
	umount -l "$mnt" 2>/dev/null
	umount -l "$top/host"
	cleanup
}
trap cleanup_container EXIT
mounted() { [ "$(findmnt -rno FSTYPE "$mnt")" = fuse.promptfs ]; }
process() { # of the daemon, as the host numbers it
	docker inspect -f '{{.State.Pid}}' "$(run ps -q promptfs)"
}

check "the file is well-formed" run config -q
check "the image is built" run build
check "a container starts" run up -d
check "its mount is seen outside" eventually 30 mounted
echo "a fox" >"$prompts/a.txt"
timeout 120 cat "$images/a.png" >"$top/a.png"
check "a picture" is_png "$top/a.png"
is "the daemon can gain no rights" "$(awk '/NoNewPrivs/ { print $2 }' "/proc/$(process)/status")" 1
for n in 1 2 3; do
	was=$(process)
	echo "words $n" >"$prompts/p$n.txt"
	kill -9 "$was"
	check "killed, it is started again" eventually 30 bash -c "[ \$(docker inspect -f '{{.State.Pid}}' $(run ps -q promptfs)) != $was ] && [ -e '$status/pid' ]"
	is "the prompt is there" "$(cat "$prompts/p$n.txt")" "words $n"
	check "and has a picture" is_png "$images/p$n.png"
done
check "the first picture is the same" cmp "$images/a.png" "$top/a.png"
check "stops" run stop
is "with 0" "$(docker inspect -f '{{.State.ExitCode}}' "$(run ps -qa promptfs 2>/dev/null || run ps -q promptfs)")" 0
check "nothing is mounted then" bash -c '! mountpoint -q "$0"' "$mnt"
check "a new container" run up -d --force-recreate
check "mounts" eventually 30 mounted
check "with the same prompts and pictures" cmp "$images/a.png" "$top/a.png"
check "is removed" run down
exit $((failures != 0))
