#!/usr/bin/env bash
# promptfs models: the table, broken models, models by path.
. "$(dirname "$0")/lib.sh"
card good
mkdir empty other
echo '{ "_class_name": "OtherPipeline" }' >other/model_index.json
cat >c.yaml <<YAML
default_model: good
models:
  good: { path: good, defaults: { size: 32x48, steps: 2 } }
  empty: { path: empty }
  other: { path: other }
  gpu: { path: good, device: "cuda:0" }
YAML
export PROMPTFS_CONFIG=$work/c.yaml
run models
check "every model has a line" is "$status $(echo "$out" | wc -l)" "0 6"
check "a good one, the default" has "$(echo "$out" | grep '^good ')" "ok, default"
check "a folder without a model" has "$(echo "$out" | grep '^empty ')" "model_index.json"
check "an unknown pipeline" has "$(echo "$out" | grep '^other ')" "OtherPipeline"
check "a device that is not there" has "$(echo "$out" | grep '^gpu ')" "cuda"
run models good
check "one that is asked for" is "$status $(echo "$out" | wc -l)" "0 2"
run models empty
check "a broken one that is asked for: exit 1" is "$status $(wc -l <.err)" "1 1"
run models --model empty
check "by option: exit 1" is "$status" 1
run models nope
check "one that is not configured" has "$status $err" "1 promptfs: no model 'nope'"
run models --model "$work/good/"
check "by path: a name of its own" has "$out" "good-2 "
run models --dry-run "$root/tests/reference/configs/stable-diffusion-v1-5"
check "a dry run of configurations alone" is "$status $(echo "$out" | grep -c '^expected ') $(echo "$out" | tail -1)" \
	"0 1022 stable-diffusion-v1-5: sd15, 1.032 billion parameters in all"
check "... names and shapes" has "$out" "expected    unet/conv_in.weight [320, 4, 3, 3]"
cp -r "$root/tests/reference/configs/stable-diffusion-v1-5" listed
rm listed/*/names.json.gz
echo '{ "tensors": { "conv_in.bias": [320], "conv_in.weight": [320, 4, 3], "other": [1] } }' >listed/unet/names.json
run models --dry-run listed
check "a list that differs: exit 1" is "$status $(echo "$out" | grep -c '^missing ')" "1 684"
check "... by shape" has "$out" "other-shape unet/conv_in.weight [320, 4, 3, 3], stored as [320, 4, 3]"
check "... by a name of no use" has "$out" "unused      unet/other [1]"
check "... what to do" has "$err" "684 tensors missing, 1 of another shape, 1 of no use"
run models --dry-run
check "a dry run of nothing" is "$status" 2
bare=$root/tests/golden/models/zimage-comfy-bare
if [ -e "$bare/vae/ae.safetensors" ]; then
	run models --model "$bare"
	check "ComfyUI's folders" has "$out" "z-image"
	check "... are told by their tensors" has "$out" "recognised by its tensors"
	cp -rL "$bare" comfy
	run models --model comfy/diffusion_models/z_image_bf16.safetensors
	check "... from the network's file" has "$out" "recognised by its tensors"
	rm -r comfy/vae
	run generate --model comfy/diffusion_models/z_image_bf16.safetensors --steps 1 --width 16 --height 16 -o b.png x
	check "a missing part is asked for" has "$status $err" "1 promptfs: "
	check "... by name" has "$err" "it holds no vae, and none is beside it: say where its file is with Set: vae_file=FILE"
	rm -r comfy/tokenizer
	run generate --model comfy --set "vae_file=$bare/vae/ae.safetensors" --steps 1 --width 16 --height 16 -o b.png x
	check "a missing tokenizer as well" has "$err" "weights hold no tokenizer: put this model's published folder tokenizer"
else
	echo "skip - models without configuration: tests/golden/models/zimage-comfy-bare is not there"
fi
echo none >junk.safetensors
fails "a file of no format" 1 "junk.safetensors" generate --model junk.safetensors -o b.png x
run generate -o a.png x
check "the model's defaults" is "$status $(head -c 24 a.png | tail -c 8 | od -An -tu1 | tr -s ' ')" "0  0 0 0 32 0 0 0 48"
printf 'x\nModel: empty' | "$program" generate -o b.png - 2>.err
status=$? err=$(cat .err)
check "a prompt file's model" has "$status $err" "1 promptfs: "
printf 'x\nModel: empty' | "$program" generate --model good -o b.png - 2>.err
status=$? err=$(cat .err)
check "an option wins over it" is "$status" 0
finish
