#!/usr/bin/env bash
# Exit statuses, help, versions, wrong usage, configuration errors.
. "$(dirname "$0")/lib.sh"

run --version
check "--version" is "$status ${out%%$'\n'*}" "0 promptfs $(cat "$root/VERSION")"
check "and the devices" has "$out" $'\ncpu'
run
check "nothing: usage on stderr" is "$status ${#out} $(head -c 6 .err)" "2 0 usage:"
run help
check "help" has "$status $out" "0 usage: promptfs COMMAND"
run --help
check "--help" has "$status $out" "0 usage: promptfs COMMAND"
for c in mount unmount generate export convert models cache help; do
	run help $c
	check "help $c" has "$status $out" "0 usage: promptfs $c"
	check "$c is in the overview" has "$("$program" help)" "  $c "
	run $c --help
	check "$c --help" has "$status $out" "0 usage: promptfs $c"
done
run help config
check "help config" has "$status $out" "PROMPTFS_CACHE_LIMIT"
run help prompt
check "help prompt" has "$status $out" "Negative prompt: blurry"
fails "help of nothing" 2 "no command 'nope'" help nope
fails "unknown command" 2 "no command 'paint'" paint
fails "unknown option before the command" 2 "no command '--nope'" --nope generate x
fails "common option without value" 2 "--device needs a value" generate x --device
fails "wrong device" 2 "'tpu' is no device" generate --device tpu x
fails "wrong dtype" 2 "'f31' is no dtype" generate x --dtype=f31
fails "wrong level" 2 "'loud' is no level" models --log loud
fails "missing configuration" 1 "/nope.yaml" models --config /nope.yaml
printf 'threads: 1\nlimits: { depth: 2 }\n' >c.yaml
fails "unknown key with its line" 1 "$work/c.yaml:2: depth: unknown key" models --config c.yaml
PROMPTFS_THREADS=x fails "wrong variable" 2 "PROMPTFS_THREADS: 'x'" models
fails "log file that cannot be" 1 "/nope/log" models --log-file /nope/log
fails "unknown option" 2 "no such option: --nope" models --nope
fails "unknown letter" 2 "no option -z" generate -z x

mkdir -p .config/promptfs
card mine
echo "models: { mine: { path: $work/mine } }" >.config/promptfs/config.yaml
run models
check "the configuration of the home is read" has "$out" "mine "
run --model mine models
check "a common option before the command" has "$status $out" "ok, default"
"$program" help >/dev/full 2>.err
status=$? err=$(cat .err)
check "a full standard output" is "$status $(wc -l <.err)" "1 1"
finish
