#!/usr/bin/env bash
# promptfs generate: pictures, what they carry, the cache, bad parameters, interrupts.
. "$(dirname "$0")/lib.sh"
card card
card slow '"delay_ms": 50'
card broken '"crash": "fail"'
export PROMPTFS_MODEL=$work/card PROMPTFS_LOG=warn

parameters() { # FILE: the text of its iTXt chunk `parameters`
	python3 - "$1" <<'PY'
import struct, sys
data, at = open(sys.argv[1], "rb").read(), 8
while at < len(data):
    n, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind == b"iTXt" and data[at + 8:].startswith(b"parameters\0"):
        sys.stdout.buffer.write(data[at + 8 + 15:at + 8 + n])
    at += n + 12
PY
}
objects() { "$program" cache stat | sed -n 's/^objects *//p'; }

run generate "a red panda"
check "the default output" is "$status ${#out} ${#err} $(head -c 4 out.png | tail -c 3)" "0 0 0 PNG"
check "nothing else is left" is "$(ls)" "$(printf 'broken\ncard\nout.png\nslow')"
check "the parameters in it" is "$(parameters out.png)" "$(printf 'a red panda\nSteps: 4, Sampler: euler, Guidance: 0, Seed: 0, Size: 64x64, RNG: torch-cpu, Model: card')"
run generate -o again.png "a red panda"
check "the same bytes again" cmp -s out.png again.png
check "from the cache: one object" is "$(objects)" 1
run generate --dtype int8 -o again.png "a red panda"
check "in int8 it is another object" is "$status $(objects)" "0 2"
run generate --dtype fp8 -o again.png "a red panda"
check "fp8 is refused where the device lacks it" has "$err" "no products in fp8; use f32, bf16 or int8"
run generate --nice 20 -o again.png "a red panda"
check "a nice level out of range is refused" has "$err" "no whole number from 0 to 19"
run generate -v -o again.png "a red panda"
check "-v reports" has "$err" "peak memory"
check "-v tells the cache" has "$err" "from the cache"
run generate -o - --width 128 --height 32 "x"
check "-o -" is "$status $(head -c 4 .out | tail -c 3 2>/dev/null)" "0 PNG"
run generate -o options.png --negative "blurry, low" --steps 3 --guidance 1.5 --seed 7 --sampler Euler --rng philox --width 128 --height 32 "a  b"
check "every option arrives" is "$(parameters options.png)" \
	"$(printf 'a  b\nNegative prompt: blurry, low\nSteps: 3, Sampler: euler, Guidance: 1.5, Seed: 7, Size: 128x32, RNG: philox, Model: card')"
before=$(objects)
parameters options.png | "$program" generate -o pasted.png -
status=$?
check "pasting the parameters gives the same picture" cmp -s options.png pasted.png
check "and the same key" is "$(objects)" "$before"
for prompt in "" " spaced " $'two\nlines' $'last\nSteps: 9' $'a\nNegative prompt: b' "a <lora:x:1>" '"quoted", yes'; do
	"$program" generate -o one.png "$prompt" && before=$(objects) && parameters one.png | "$program" generate -o two.png -
	status=$?
	check "pasted back: ${prompt//$'\n'/\\n}" cmp -s one.png two.png
	check "the same key: ${prompt//$'\n'/\\n}" is "$(objects)" "$before"
done
printf 'x\nSteps: 2, Seed: 5, Size: 32x96' | "$program" generate -o mixed.png --steps 3 --width 48 -
check "options win over the file" has "$(parameters mixed.png)" "Steps: 3, Sampler: euler, Guidance: 0, Seed: 5, Size: 48x96"
run generate --seed -1 -o r1.png x
run generate --seed -1 -o r2.png x
check "random seeds differ" is "$(cmp -s r1.png r2.png; echo $?)" 1
run generate -o kept.png -- -o
check "a prompt that looks like an option" is "$status $(parameters kept.png | head -1)" "0 -o"
chmod 640 kept.png
run generate -o kept.png other
check "a file's mode stays" is "$(stat -c %a kept.png)" 640
ln -s kept.png link.png
run generate -o link.png third
check "a link stays a link" is "$(readlink link.png) $(parameters kept.png | head -1)" "kept.png third"

fails "no prompt" 2 "the prompt is missing" generate
fails "two prompts" 2 "quote it" generate a b
fails "option without value" 2 "--steps needs a value" generate x --steps
for pair in "steps 0" "steps x" "steps 1001" "width 0" "height x" "seed -2" "seed 1.5" "guidance inf" "cfg x" "rng dice" "set x" "lora x:y"; do
	fails "--$pair" 2 "'${pair#* }'" generate "--${pair% *}" "${pair#* }" -o bad.png x
done
fails "a size the family refuses" 1 "100" generate --width 100 -o bad.png x
fails "a size beyond the limit" 1 "limit of 32x32" generate --size-limit 32x32 -o bad.png x
fails "two guidances" 1 "give one of them" generate --cfg 1 --guidance 1 -o bad.png x
fails "unknown sampler" 1 "Sampler: unknown name 'magic'" generate --sampler magic -o bad.png x
fails "unknown set" 1 "Set: eta" generate --set eta=1 -o bad.png x
fails "prompt not UTF-8" 1 "UTF-8" generate -o bad.png $'a\xff'
fails "folder missing" 1 "/nope/x.png" generate -o /nope/x.png x
fails "output is a folder" 1 "$work" generate -o "$work" x
fails "unknown model" 1 "no model 'nope'" generate --model nope -o bad.png x
fails "folder without a model" 1 "model_index.json" generate --model "$work" -o bad.png x
fails "a generation that fails" 1 "" generate --model broken -o bad.png x
printf 'a\nSteps: x' >p.txt
"$program" generate -o bad.png - <p.txt 2>.err
status=$? err=$(cat .err)
check "a bad prompt file: its line" has "$status $err" "1 promptfs: the prompt on standard input: line 2: Steps: 'x'"
check "no picture after failures" test ! -e bad.png

"$program" generate --model slow --steps 100 -o int.png x 2>.err &
pid=$!
sleep 0.5
kill -INT $pid
wait $pid
status=$? err=$(cat .err)
check "interrupted: 130" is $status 130
check "interrupted: no file" is "$(ls int* 2>/dev/null)" ""
run generate --cache /proc/nope -o nocache.png x
check "without a cache it paints all the same" is "$status $(head -c 4 nocache.png | tail -c 3)" "0 PNG"
run generate --trace t.safetensors -o t.png "a red panda"
check "a trace is not from the cache" test -s t.safetensors
check "and gives the same picture" cmp -s t.png out.png
finish
