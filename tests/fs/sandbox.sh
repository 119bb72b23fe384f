# What a worker may not do.
. "$(dirname "$0")/lib.sh"
check "mounts" mount_fs
echo "a fox" >"$prompts/a.txt"
check "a picture" is_png "$images/a.png"
worker=$(pgrep -P "$(server)" | head -n 1)
is "the worker can gain no rights" "$(awk '/NoNewPrivs/ { print $2 }' "/proc/$worker/status")" 1
done_fs
