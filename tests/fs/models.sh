# Several models in one daemon: chosen by a prompt or a folder's .defaults, side by side in one worker, unloaded one by one.
. "$(dirname "$0")/lib.sh"
mkdir "$top/other"
echo '{"_class_name": "PromptfsTestCard", "delay_ms": 1, "width": 128}' >"$top/other/model_index.json"
cat >"$top/config.yaml" <<E2
default_model: card
models:
  card: { path: $model }
  other: { path: $top/other }
E2
mount_two() {
	timeout 20 "$promptfs" mount --config "$top/config.yaml" --store "$store" --cache "$cache" --log-file "$log" "$mnt"
}
check "mounts" mount_two
loaded() { grep -c '"loaded": true' "$status/models/$1.json"; }
is_loaded() { [ "$(loaded "$1")" = "$2" ]; }
mkdir "$prompts/d"
echo "Model: other" >"$prompts/d/.defaults"
echo "a fox" >"$prompts/a.txt"
echo "a fox" >"$prompts/d/b.txt"
printf 'a fox\nModel: other' >"$prompts/c.txt"
check "the default model" is_png "$images/a.png"
check "the folder's" is_png "$images/d/b.png"
is "the prompt's own, made once" "$(cmp "$images/c.png" "$images/d/b.png" && generated)" 2
is "info names it" "$(grep -o '"model": "[a-z]*"' "$status/info/c.json" | head -n 1)" '"model": "other"'
is "both are loaded" "$(loaded card)$(loaded other)" 11
is "in one worker" "$(pgrep -c -P "$(server)")" 1
echo "unload other" >"$status/control"
check "one is unloaded" eventually 5 is_loaded other 0
is "the other stays" "$(loaded card)" 1
echo "warm other" >"$status/control"
check "and is warmed again" eventually 5 is_loaded other 1
refuses "a model that is not there" "Invalid argument" bash -c "echo 'warm none' >'$status/control'"
printf 'a fox\nModel: none' >"$prompts/n.txt"
refuses "in a prompt" "No such device" cat "$images/n.png"
done_fs
