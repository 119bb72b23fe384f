#!/usr/bin/env bash
# promptfs bench: what it prints, not how fast anything is.
. "$(dirname "$0")/lib.sh"
export PROMPTFS_DEVICE=cpu PROMPTFS_THREADS=1

# value EXPRESSION: of the result `r` that the last run printed as JSON
value() { python3 -c 'import json, sys; r = json.load(open(sys.argv[1])); print(eval(sys.argv[2]))' "$work/.out" "$1" 2>&1; }

run bench --steps 2 --repeats 1 --size 64x64
check "the model that ships" is "$status$err" 0
check "its name, and the limit" has "$out" "pocket (z-image), cpu"
for stage in load text step decode png picture; do
	check "a line for $stage" test "$(grep -c "^$stage " .out)" = 1
done

run bench --dtype f32 --steps 2 --repeats 2 --limit 100 --size 64x64 --size 128x64 --json
check "JSON" is "$status$err" 0
check "what was measured" is "$(value 'r["model"], r["device"], r["dtype"], r["threads"], r["limit_gflops"]')" \
	"('pocket', 'cpu', 'f32', 1, 100.0)"
check "every size" is "$(value '[(x["width"], x["height"], x["steps"], x["repeats"], len(x["others"])) for x in r["runs"]]')" \
	"[(64, 64, 2, 2, 2), (128, 64, 2, 2, 2)]"
check "every stage" is "$(value 'list(r["runs"][0]["stages"])')" "['load', 'text', 'step', 'decode', 'png']"
check "the rate is the work by the time" is "$(value 'all(abs(s["gflop"] / s["seconds"] / s["gflops"] - 1) < 0.01 and
	abs(s["gflops"] / 100 / s["share"] - 1) < 0.01 for x in r["runs"] for s in x["stages"].values() if "gflop" in s)')" True
check "twice the picture, twice the decoder's work" \
	is "$(value '1.9 < r["runs"][1]["stages"]["decode"]["gflop"] / r["runs"][0]["stages"]["decode"]["gflop"] < 2.6')" True
check "the second size's text is encoded too" is "$(value 'len({x["stages"]["text"]["gflop"] for x in r["runs"]})')" 1
check "memory" is "$(value 'all(x["peak_memory"] > x["device_memory"] > 1e6 for x in r["runs"])')" True

run bench --steps 1 --repeats 0 --limit 0 --size 64x64 --json "a fox"
check "the first run alone" is "$status $(value 'r["runs"][0]["repeats"], "share" in r["runs"][0]["stages"]["step"]')" "0 (1, False)"

echo 'echo "stage step 1000"; echo "stage other 5"; echo turn >>turns; echo "waits $OMP_WAIT_POLICY" >waits' >peer.sh
run bench --steps 1 --repeats 3 --size 64x64 --json --peer "sh peer.sh"
check "beside another program" is "$status$err" 0
check "both took their turns" is "$(wc -l <turns) $(value 'len(r["comparison"]["promptfs"]["others"]), len(r["comparison"]["peer"]["others"])')" \
	"3 (3, 3)"
check "the other waits for its threads as it chose" is "$(cat waits)" "waits "
check "ratios of what both tell" is "$(value 'sorted(r["comparison"]["ratios"])')" "['peak_memory', 'seconds', 'step']"
check "the other's over ours" is "$(value 'abs(r["comparison"]["ratios"]["step"] *
	r["comparison"]["promptfs"]["stages"]["step"] / 1000 - 1) < 0.01')" True
run bench --steps 1 --repeats 1 --size 64x64 --peer "sh peer.sh"
check "as a table" has "$out" "ratio"

# configurations alone: those that ship are read, small ones are run
for name in z-image-turbo medium slice flux-dev sdxl sd15; do
	run models --dry-run "$root/models/random/$name"
	check "random:$name is a whole model" is "$status$(echo "$out" | grep -c '^missing')" 00
	check "random:$name: size" has "$out" "billion parameters in all"
done
for name in zimage-tiny flux-dev-tiny sd15-tiny; do
	mkdir -p "models/random/$name"
	(cd "$root/tests/golden/models/$name" && tar -chf - --exclude='*.safetensors' --exclude='*.index.json' .) | tar -xf - -C "models/random/$name"
	PROMPTFS_MODELS=$work/models run bench --model random:$name --steps 2 --repeats 1 --limit 0 --size 64x64 --json
	check "$name with random weights" is "$status$err$(value 'r["model"], r["runs"][0]["stages"]["step"]["gflop"] > 0')" \
		"0('random:$name', True)"
done
# what does not fit is refused with its size: a matrix in 8 bits counts a byte a weight
# (ref has int8 beside f32)
for size in bf16:7.8:12.3 f32:15.7:24.6 int8:15.7:6.6; do
	IFS=: read -r dtype text transformer <<<"$size"
	fails "random:z-image-turbo does not fit 1 GiB in $dtype" 1 \
		"in $dtype its parts take: text encoder $text GB, transformer $transformer GB" \
		bench --model random:z-image-turbo --device ref --dtype "$dtype" --limit 0 --memory-limit 1G
done
fails "no configurations of that name" 1 "no such configurations" bench --model random:nothing
fails "another folder" 1 "no such configurations" bench --model random:../pocket
fails "random weights are for benchmarks" 1 "neither diffusion_pytorch_model" generate --model random:sd15 -o x.png x

fails "the other fails" 1 "exit 3: exit status 3" bench --steps 1 --repeats 1 --size 64x64 --peer "exit 3"
fails "a size" 2 "'64' is no size" bench --size 64
fails "a size the model does not make" 1 "65" bench --size 65x64
fails "steps" 2 "--steps: '0'" bench --steps 0
fails "repeats" 2 "--repeats: '100'" bench --repeats 100
fails "a limit" 2 "--limit: 'fast'" bench --limit fast
fails "an option" 2 "no such option: --fast" bench --fast
fails "two prompts" 2 "quote it" bench a b
fails "two sizes beside another program" 2 "one size" bench --size 64x64 --size 32x32 --peer true
fails "no turns beside another program" 2 "at least 1" bench --repeats 0 --peer true
fails "no model" 1 "no such model" bench --model "$work/nowhere/"
finish
